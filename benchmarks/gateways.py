"""What does it cost a source to hand its frames to several gateways? `python -m benchmarks.gateways [--json FILE]`

The real hub and TopicService over a store in memory, in the process that is measured; gateways are streams of another
process, which counts and discards.

- **streams**: all frames come on the streams.
- **published**: the source publishes them over a real nats-server, where the gateways take them (`OA_FRAMES_NATS_URL`).
- **NATS**: no source, but a bare client that publishes the same frames, each once on a subject of its topic.

CPU time of the source for an event, kernel included, of the server, and of all gateways together, which only count what
comes; all events have to arrive.

- **all**: every gateway follows every topic, as with runs that many watch.
- **one**: each topic is followed by one gateway, as with runs that one person watches.
- **none**: nobody follows. A source that hears of interest has nothing to send; one that publishes all does not know.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import nats
import psutil
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.measure import Figures, report
from oa_base.refusal import Refusal
from oa_fanout.nats import NatsConnection
from oa_khala.frames import TopicState
from oa_khala.topics import Source, Topic, run_events
from oa_khala.wire import event_frame
from oa_testing.peers.nats import NatsServer, nats_server
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.publisher import FramePublisher
from oa_topics.servicer import TopicApi
from oa_topics.store import StateAt, TopicDescription, TopicLimits
from openagents.sync.v1 import topic_service_pb2, topic_service_pb2_grpc

GATEWAYS = (1, 4, 16)
FOLLOWED = ("all", "one", "none")
PAYLOAD_BYTES = 200
TOPICS = 64
_READY, _DONE = "ready", "done"
_SUBJECT = "source"
_PATIENCE_S = 120.0
_CHARACTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
Publish = Callable[[str, int, bytes], Awaitable[None]]


def topics() -> list[str]:
    """The topics of the benchmark."""
    return [
        run_events(f"run_01J9ZQ6T5W3M8K2N4P7R1S0V{_CHARACTERS[n // 32]}{_CHARACTERS[n % 32]}") for n in range(TOPICS)
    ]


def followed_by(gateway: int, gateways: int, followed: str) -> list[str]:
    """The topics that one of the gateways follows."""
    if followed == "none":
        return []
    return [topic for number, topic in enumerate(topics()) if followed == "all" or number % gateways == gateway]


class _Heads:
    """A `TopicStore` of topics that are all at 0: a gateway that watches from there gets all published frames."""

    source: Source = "runtime"

    async def epoch(self) -> str:
        """See TopicStore."""
        return "e1"

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore."""
        return {topic: TopicDescription(topic, TopicState("e1", 0, 0)) for topic in topics}

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return []

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        return None

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        return None

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        raise AssertionError


class _Unreported:
    def watching(self, difference: int) -> None:
        """See HubReport."""

    def dropped(self, frames: int) -> None:
        """See HubReport. A dropped frame would have to be replayed, and its cost would not be counted."""
        raise AssertionError(f"{frames} frames found no room")

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        raise error


@asynccontextmanager
async def _streams(publisher: FramePublisher | None = None) -> AsyncIterator[tuple[str, Publish]]:
    hub = TopicHub(_Heads(), TopicLimits(pending_bytes=1 << 30), _Unreported(), publisher)
    server = grpc.aio.server()
    api = TopicApi(hub, DeliveryChecks(_no_check), lambda method, refusal: None)
    topic_service_pb2_grpc.add_TopicServiceServicer_to_server(api, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def publish(topic: str, seq: int, payload: bytes) -> None:
        if hub.watches(topic):
            hub.publish(topic, [(seq, payload)])

    telling = asyncio.create_task(hub.run_heads())
    yield str(port), publish
    telling.cancel()
    await server.stop(0)


@asynccontextmanager
async def _published(server: NatsServer) -> AsyncIterator[tuple[str, Publish]]:
    connection = NatsConnection(server.url, lambda: 0.5)
    publisher = FramePublisher(connection, _SUBJECT, 1 << 30, lambda _: None)
    working = [asyncio.create_task(work) for work in (connection.run(), publisher.run())]
    async with asyncio.timeout(_PATIENCE_S):
        while not connection.max_bytes:
            await asyncio.sleep(0.01)
    async with _streams(publisher) as (port, publish):
        yield f"{port} {server.url}", publish
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)


async def _no_check() -> None:
    """Does nothing: the cost of a check, once a second, does not depend on the number of gateways."""


@asynccontextmanager
async def _subjects(server: NatsServer) -> AsyncIterator[tuple[str, Publish]]:
    connection = await nats.connect(server.url)

    async def publish(topic: str, seq: int, payload: bytes) -> None:
        await connection.publish(_subject(topic), event_frame(topic, seq, payload))

    yield server.url, publish
    await connection.close()


def _subject(topic: str) -> str:
    return topic.replace(":", ".")


# ------------------------------------------------------------------------------------------- the reader's process


async def _read(kind: str, where: str, gateways: int, followed: str, events: int) -> None:
    """Follow as `gateways` gateways, report that, and report when everything has arrived."""
    counter = _Counter(gateways * events if followed == "all" else events if followed == "one" else 0)
    ways: dict[str, Callable[[str, Sequence[str], _Counter], AbstractAsyncContextManager[None]]] = {
        "streams": _follow_stream,
        "published": _follow_published,
        "NATS": _follow_subjects,
    }
    follow = ways[kind]
    async with contextlib.AsyncExitStack() as parts:
        for gateway in range(gateways):
            await parts.enter_async_context(follow(where, followed_by(gateway, gateways, followed), counter))
        _say(_READY)
        before = time.process_time()
        await counter.all_came.wait()
        _say(f"{_DONE} {time.process_time() - before}")


class _Counter:
    def __init__(self, expected: int) -> None:
        self._left = expected
        self.all_came = asyncio.Event()
        if not expected:
            self.all_came.set()

    def came(self, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            self.all_came.set()


@asynccontextmanager
async def _follow_published(where: str, wanted: Sequence[str], counter: _Counter) -> AsyncIterator[None]:
    port, url = where.split()
    connection = NatsConnection(url, lambda: 0.5)

    def came(data: bytes) -> None:
        message = topic_service_pb2.WatchTopicsResponse.FromString(data)
        counter.came(sum(len(batch.frames) for batch in message.batches))

    for topic in wanted:
        connection.subscribe(f"{_SUBJECT}.{topic}", came)
    holding = asyncio.create_task(connection.run())
    while not connection.max_bytes:
        await asyncio.sleep(0.01)
    async with _follow_stream(port, wanted, counter, by_subject=True):
        yield
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


@asynccontextmanager
async def _follow_stream(
    port: str, wanted: Sequence[str], counter: _Counter, by_subject: bool = False
) -> AsyncIterator[None]:
    route = topic_service_pb2.FRAME_ROUTE_SUBJECT if by_subject else topic_service_pb2.FRAME_ROUTE_STREAM
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own_connection) as channel:
        stub: Any = topic_service_pb2_grpc.TopicServiceStub(channel)
        call = stub.WatchTopics()
        await call.write(topic_service_pb2.WatchTopicsRequest(add_topics=wanted, frame_route=route))
        watched = 0
        while watched < len(wanted):
            watched += len((await call.read()).watched)

        async def read() -> None:
            while (message := await call.read()) is not grpc.aio.EOF:
                counter.came(sum(len(batch.frames) for batch in message.batches))

        reading = asyncio.create_task(read())
        yield
        reading.cancel()


@asynccontextmanager
async def _follow_subjects(url: str, wanted: Sequence[str], counter: _Counter) -> AsyncIterator[None]:
    connection: Client = await nats.connect(url)

    async def came(message: Msg) -> None:
        counter.came(1)

    for topic in wanted:
        await connection.subscribe(_subject(topic), cb=came, pending_msgs_limit=1 << 30, pending_bytes_limit=1 << 40)
    # The first ping of nats-py overtakes subscriptions that it has not written yet; the second follows them.
    await connection.flush()
    await connection.flush()
    yield
    await connection.close()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------- the measured process


async def measured(
    events: int, gateways: Sequence[int] = GATEWAYS, followed: Sequence[str] = FOLLOWED
) -> list[Figures]:
    """One row for each kind of delivery, number of gateways and kind of interest."""
    rows = []
    async with nats_server() as server:
        [of_server] = [one for one in psutil.Process().children(recursive=True) if "nats-server" in one.name()]
        with contextlib.suppress(AttributeError):
            of_server.cpu_affinity(list(range(1, os.cpu_count() or 1)))
        for count in gateways:
            for who in followed:
                async with _streams() as (port, publish):
                    rows.append(await _row("streams", port, publish, count, who, events, None))
                async with _published(server) as (where, publish):
                    rows.append(await _row("published", where, publish, count, who, events, of_server))
                async with _subjects(server) as (url, publish):
                    rows.append(await _row("NATS", url, publish, count, who, events, of_server))
    return rows


async def _row(
    kind: str, where: str, publish: Publish, gateways: int, followed: str, events: int, server: psutil.Process | None
) -> Figures:
    names, payload = topics(), b"x" * PAYLOAD_BYTES
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateways", "--read", kind, where, str(gateways), followed, str(events)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await _until(reader, _READY)
            source = psutil.Process()
            before, server_before, began = _cpu_s(source), _cpu_s(server), time.perf_counter()
            for number in range(events):
                await publish(names[number % TOPICS], number // TOPICS + 1, payload)
                await asyncio.sleep(0)  # events of different runs are committed by themselves
            of_gateways = float(await _until(reader, _DONE))
            seconds = time.perf_counter() - began
            used, server_used = _cpu_s(source) - before, _cpu_s(server) - server_before
            await reader.wait()
    finally:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
    note = f"{used / events * 1e6:.1f} µs of CPU an event in the source"
    if server is not None:
        note += f", {server_used / events * 1e6:.1f} in the server"
    note += f", {of_gateways / events * 1e6:.1f} in the gateways"
    return Figures(kind, f"{gateways} gateways, {followed}", events, seconds, note=note)


async def _until(reader: asyncio.subprocess.Process, word: str) -> str:
    """Wait for the reader's line that begins with `word`. Returns the rest of the line."""
    assert reader.stdout is not None
    said, _, rest = (await reader.stdout.readline()).decode().strip().partition(" ")
    assert said == word, f"the reader ended with {await reader.wait()}"
    return rest


def _cpu_s(process: psutil.Process | None) -> float:
    """The CPU time of a process so far, kernel included; 0 without a process."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def _use_cores(cores: Sequence[int]) -> None:
    """Bind this process to these cores. If there are several, the source has one to itself, its children the others."""
    if hasattr(os, "sched_setaffinity") and cores:
        os.sched_setaffinity(0, cores)


def main() -> None:
    """Measure, or act as the process that reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--events", type=int, default=30_000, help="of each row")
    parser.add_argument("--read", nargs=5, metavar=("KIND", "WHERE", "GATEWAYS", "FOLLOWED", "EVENTS"))
    arguments = parser.parse_args()
    if arguments.read:
        _use_cores(range(1, os.cpu_count() or 1))
        kind, where, gateways, followed, events = arguments.read
        uvloop.run(_read(kind, where, int(gateways), followed, int(events)))
        return
    _use_cores([0])
    rows = uvloop.run(measured(arguments.events))
    report("Handing frames to several gateways", rows, arguments.json)


if __name__ == "__main__":
    main()
