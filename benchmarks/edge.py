"""What does a call of the public edge cost? `python -m benchmarks.edge [--json FILE]`

A whole stack on loopback, as `oa up` starts it. Control has one core to itself, whoever calls has the others. Callers
send ready-made bytes over kept connections, each its next call when the last one is answered, and look at the status of
the answers alone. A row is one kind of call, in `--rounds` rounds that take turns with those of the others:

- **GetCaller**: answered by control itself, for a person who is signed in.
- **GetRun**: forwarded to runtime, for the same person; as JSON, which is translated, and as protobuf, which is not.
- **MintSyncToken**: a token for one topic; a row of the audit log is committed.
- **a wrong token**: a 401 that needs no database.
- **bare handler** (floor): Starlette on the same server, with an answer of the same size as GetCaller's, and nothing
  else. See `benchmarks.peers.bare_edge`.
- **bare grpc.aio** (floor): a method that answers, called by grpc.aio.
- **sign-in**, **refresh**: StartChallenge to VerifyChallenge without the mail's way; RefreshSession. One at a time.

The note has the CPU time that control (or the floor) used for a call, the median of the rounds and their range, and how
many times the bare handler's that is. The goals: a forwarded call at most 3 times, 2,000 mints a second of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc.aio
import psutil
import uvloop

from benchmarks.measure import Figures, on_cores, report
from benchmarks.peers.bare_edge import GRPC_METHOD, BareEdge, bare_edge
from benchmarks.people import Session, Site, site
from benchmarks.sizing.meter import Subject, process
from oa_khala.topics import user_runs
from openagents.runtime.v1 import run_service_pb2

FLOOR = "bare handler"
_EVERYTHING = {
    f"OA_CALLS_{kind}_{what}": "1000000"
    for kind in ("READS", "WRITES", "MINTS", "PUBLIC")
    for what in ("PER_S", "BURST")
}
"""Settings of control with which one caller may call as often as it can."""
_JSON, _PROTO = "application/json", "application/proto"
_CONTROL = "openagents.control.v1"
_GET_RUN = "openagents.runtime.v1.RunService/GetRun"
Call = Callable[[], Awaitable[None]]


@dataclass
class Kind:
    """A kind of call: its callers, which call at the same time, and the subject whose CPU time counts."""

    name: str
    subject: Subject
    callers: Sequence[Call]
    latencies_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    seconds: float = 0.0

    async def round(self, calls: int) -> None:
        """Make `calls` calls, by all callers together."""
        shares = itertools.repeat(calls // len(self.callers), len(self.callers))
        began, cpu_s = time.perf_counter(), self.subject.cpu_s()
        done = await asyncio.gather(*map(_repeated, self.callers, shares))
        self.cpu_us.append((self.subject.cpu_s() - cpu_s) / sum(map(len, done)) * 1e6)
        self.seconds += time.perf_counter() - began
        self.latencies_ms += itertools.chain.from_iterable(done)

    def figures(self, floor_us: float) -> Figures:
        """The row."""
        median = statistics.median(self.cpu_us)
        note = f"{median:,.0f} µs ({min(self.cpu_us):,.0f}–{max(self.cpu_us):,.0f}), {median / floor_us:.1f}x bare"
        setting = f"{len(self.callers)} callers" if len(self.callers) > 1 else "one at a time"
        return Figures(self.name, setting, len(self.latencies_ms), self.seconds, self.latencies_ms, note)


async def _repeated(call: Call, times: int) -> list[float]:
    latencies_ms = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        latencies_ms.append((time.perf_counter() - began) * 1000)
    return latencies_ms


# ------------------------------------------------------------------------------------------------- callers


class Connection:
    """One kept HTTP connection that sends the same request over and over."""

    def __init__(self, port: int, request: bytes, status: int = 200) -> None:
        self._port = port
        self._request = request
        self._status = b"HTTP/1.1 %d " % status
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answer = b""
        """The body of the newest answer."""

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()

    async def call(self) -> None:
        """Send the request, and read the answer. Raises AssertionError for another status than the expected one."""
        if self._streams is None or self._streams[0].at_eof():  # a server ends a connection that has been idle for long
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        self.answer = await reader.readexactly(int(length))
        assert head.startswith(self._status), head + self.answer


def _request(path: str, body: bytes, media_type: str = _JSON, token: str = "") -> bytes:
    head = f"POST /{path} HTTP/1.1\r\nhost: edge\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n"
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    return f"{head}{authorization}\r\n".encode() + body


# ------------------------------------------------------------------------------------------------- kinds


class Kinds:
    """Every kind of call, at a running site."""

    def __init__(self, site: Site, person: Session, callers: int, open_now: AsyncExitStack) -> None:
        self._site = site
        self._person = person
        self._callers = callers
        self._open_now = open_now
        self._port = urlsplit(site.stack.urls["control"]).port or 0
        pid = site.stack.pid("control")
        assert pid is not None
        self._control = process(pid)
        self._people = itertools.count(1)

    async def of_edge(self) -> list[Kind]:
        """The kinds of a person who is signed in, and the one with a wrong token."""
        credentials = self._person.auth.credentials()
        token, run = credentials.access_token, await self._person.commands.start_exec(["true"])
        mint = {"topics": [user_runs(credentials.user_id)], "surface": "cli"}
        as_json, as_proto = json.dumps({"runId": run.run_id}).encode(), _get_run(run.run_id)
        requests = {
            "GetCaller": _request(f"{_CONTROL}.SessionService/GetCaller", b"{}", token=token),
            "GetRun, JSON": _request(_GET_RUN, as_json, token=token),
            "GetRun, protobuf": _request(_GET_RUN, as_proto, _PROTO, token),
            "MintSyncToken": _request(
                f"{_CONTROL}.SyncTokenService/MintSyncToken", json.dumps(mint).encode(), token=token
            ),
        }
        kinds = [Kind(name, self._control, self._of(self._port, request)) for name, request in requests.items()]
        wrong = _request(f"{_CONTROL}.SessionService/GetCaller", b"{}", token=token[:-4] + "AAAA")
        return [*kinds, Kind("a wrong token", self._control, self._of(self._port, wrong, 401))]

    async def answer_bytes(self) -> int:
        """Size of GetCaller's answer."""
        token = self._person.auth.credentials().access_token
        connection = self._connection(self._port, _request(f"{_CONTROL}.SessionService/GetCaller", b"{}", token=token))
        await connection.call()
        return len(connection.answer)

    def of_floor(self, floor: BareEdge, channel: grpc.aio.Channel) -> list[Kind]:
        """The floors, which only answer."""
        echo: Any = channel.unary_unary(GRPC_METHOD)

        async def call() -> None:
            await echo(b"{}")

        bare = process(floor.pid)
        handler = self._of(floor.http_port, _request("x", b"{}"))
        return [Kind(FLOOR, bare, handler), Kind("bare grpc.aio", bare, [call] * self._callers)]

    def of_sign_in(self) -> list[Kind]:
        """Signing in, and refreshing the session."""

        async def sign_in() -> None:
            await self._site.session(next(self._people))

        async def refresh() -> None:
            await self._person.auth.renewed(await self._person.auth.current())

        return [Kind("sign-in", self._control, [sign_in]), Kind("refresh", self._control, [refresh])]

    def _of(self, port: int, request: bytes, status: int = 200) -> list[Call]:
        return [self._connection(port, request, status).call for _ in range(self._callers)]

    def _connection(self, port: int, request: bytes, status: int = 200) -> Connection:
        return self._open_now.enter_context(closing(Connection(port, request, status)))


def _get_run(run_id: str) -> bytes:
    return run_service_pb2.GetRunRequest(run_id=run_id).SerializeToString()


@contextmanager
def _apart(pids: Sequence[int]) -> Iterator[None]:
    """Put these processes on the first core, and the callers on the others for a block; with a single core, change
    nothing."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        for pid in pids:
            psutil.Process(pid).cpu_affinity(cores[:1])
    with on_cores(cores[1:] or cores):
        yield


async def measured(callers: int, calls: int, rounds: int) -> list[Figures]:
    """Every row."""
    async with site(control=_EVERYTHING) as here, AsyncExitStack() as open_now:
        kinds = Kinds(here, await here.session(0), callers, open_now)
        with bare_edge(await kinds.answer_bytes()) as floor:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{floor.grpc_port}") as channel:
                control = here.stack.pid("control")
                assert control is not None
                with _apart([control, floor.pid]):
                    many = [*await kinds.of_edge(), *kinds.of_floor(floor, channel)]
                    few = kinds.of_sign_in()
                    for kind in many + few:
                        await kind.round(len(kind.callers))
                        kind.latencies_ms, kind.cpu_us, kind.seconds = [], [], 0.0
                    for _ in range(rounds):
                        for kind in many:
                            await kind.round(calls)
                        for kind in few:
                            await kind.round(max(1, calls // 20))
    floor_us = next(statistics.median(kind.cpu_us) for kind in many if kind.name == FLOOR)
    return [kind.figures(floor_us or 1.0) for kind in many + few]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--callers", type=int, default=8, help="calls at a time")
    parser.add_argument("--calls", type=int, default=4000, help="of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = uvloop.run(measured(arguments.callers, arguments.calls, arguments.rounds))
    report("edge: what does a call cost?", rows, arguments.json)


if __name__ == "__main__":
    main()
