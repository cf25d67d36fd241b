"""What does fan-out cost, and how late is it, beside what people use today?

    python -m benchmarks.khala_peers [--rounds 5] [--json FILE]

The gateway (its hub, connections and sockets; no token is verified), Centrifuge (the library behind Centrifugo, in Go),
a NATS server, and `broadcast()` of the Python library `websockets`, in turns. Each server is a process on one core, and
all clients are one process on the other. CPU is that of the server's process, from before the first event is published
until the last client has the last one. An event has 200 bytes, and its age is measured by a clock that both processes
share: it contains the time that the clients' process takes for the events before it, the same for every server.

Centrifuge needs Go, and Go's module proxy once; without them it is left out, and the benchmark says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.many_clients import go_program
from benchmarks.measure import Figures, report
from benchmarks.peers.listeners import KINDS
from benchmarks.peers.processes import CENTRIFUGE, cpu_s_of, line_of, server_process

EVENT_BYTES = 200
_POLL_S = 0.02
NAMES = {"gateway": "khala_gateway", "centrifuge": "Centrifuge", "nats": "nats-server", "broadcast": "broadcast()"}


@dataclass(frozen=True)
class Load:
    """`together` events are published at once, `rounds` times, to each of the topics in turn."""

    name: str
    rounds: int
    together: int
    interval_us: int


@dataclass(frozen=True)
class Crowd:
    """So many clients, each of which follows one of so many topics."""

    clients: int
    topics: int
    loads: Sequence[Load]


CROWDS = (
    Crowd(
        1_000,
        1,
        (
            Load("1x1000 singly", 100, 1, 20_000),
            Load("1x1000 by 10", 50, 10, 80_000),
            Load("1x1000, 25 a second", 75, 1, 40_000),
        ),
    ),
    Crowd(100, 1, (Load("1x100 singly", 400, 1, 5_000),)),
    Crowd(1_000, 200, (Load("200x5 singly, 1,000 a second", 3_000, 1, 1_000),)),
)


@dataclass(frozen=True)
class Result:
    """What one load took: deliveries, CPU of the server in seconds, and the age of events in ms."""

    received: int
    missing: int
    cpu_s: float
    ages_ms: Sequence[float]


async def measured(kind: str, server: Sequence[str], crowd: Crowd) -> dict[str, Result]:
    """The results of each of the crowd's loads."""
    results = {}
    async with server_process(0, *server) as serving:
        port, pid = (await line_of(serving)).split()
        listeners = (sys.executable, "-m", "benchmarks.peers.listeners")
        async with server_process(1, *listeners, kind, port, str(crowd.clients), str(crowd.topics)) as listening:
            assert await line_of(listening) == "ready"
            for load in crowd.loads:
                await asyncio.sleep(0.5)
                await line_of(listening, "report")
                results[load.name] = await _one(serving, listening, int(pid), crowd, load)
    return results


async def _one(
    serving: asyncio.subprocess.Process, listening: asyncio.subprocess.Process, pid: int, crowd: Crowd, load: Load
) -> Result:
    expected = load.rounds * load.together * crowd.clients // crowd.topics
    before_s = cpu_s_of(pid)
    asked = f"{load.rounds} {load.together} {load.interval_us} {crowd.topics} {EVENT_BYTES}"
    assert await line_of(serving, asked) == "done"
    await asyncio.sleep(1.0)
    got = json.loads(await line_of(listening, "report"))
    return Result(got["received"], expected - got["received"], cpu_s_of(pid) - before_s, got["ages_ms"])


async def series(servers: dict[str, Sequence[str]], crowds: Sequence[Crowd], rounds: int) -> list[Figures]:
    """Every server under every load, in turns; a row for each, with medians and ranges."""
    results: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for _ in range(rounds):
        for crowd in crowds:
            for kind, server in servers.items():
                for name, result in (await measured(kind, server, crowd)).items():
                    results[name, kind].append(result)
    return [_row(NAMES[kind], name, several) for (name, kind), several in results.items()]


def _row(subject: str, setting: str, several: Sequence[Result]) -> Figures:
    received = sum(one.received for one in several)
    each_us = [one.cpu_s / max(1, one.received) * 1e6 for one in several]
    note = f"{statistics.median(each_us):.1f} µs ({min(each_us):.1f}–{max(each_us):.1f}) a delivery"
    if missing := sum(one.missing for one in several):
        note += f"; {missing} MISSING"
    ages_ms = [age for one in several for age in one.ages_ms]
    return Figures(subject, setting, received, sum(one.cpu_s for one in several), ages_ms, note)


def main() -> None:
    """Entry point of `python -m benchmarks.khala_peers`."""
    parser = argparse.ArgumentParser(description="Fan-out beside Centrifuge, NATS and websockets.broadcast().")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = go_program(CENTRIFUGE, Path(directory))
        servers: dict[str, Sequence[str]] = {
            kind: (sys.executable, "-m", "benchmarks.peers.fan_out", kind) for kind in KINDS if kind != "centrifuge"
        }
        if program is not None:
            servers["centrifuge"] = (str(program),)
        else:
            print("Centrifuge is left out: it needs Go, and Go's module proxy", file=sys.stderr)
        rows = asyncio.run(series(servers, CROWDS, arguments.rounds))
    report("Fan-out beside peers, 200 bytes: deliveries a second of CPU, and the age of events", rows, arguments.json)


if __name__ == "__main__":
    main()
