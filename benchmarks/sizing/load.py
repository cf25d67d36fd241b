"""Workers of the real SDK in this process, and the events of their runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.sizing.site import PATIENCE_S, SharedToken, Site
from benchmarks.stage import REPOSITORY
from oa_worker import Assignment, Emit, Worker, WorkerLimits
from oa_worker.sdk.notices import Attached, Notice
from openagents.runtime.v1.event_pb2 import (
    RUN_OUTCOME_SUCCEEDED,
    TEXT_STREAM_STDOUT,
    EventBody,
    RunFinished,
    TextDelta,
)

EVENT_BYTES = 256
"""Bytes of text in an event."""


def texts() -> Iterator[EventBody]:
    """Events with the text of this repository's sources, which is as hard to compress as people's data."""
    for path in itertools.cycle(sorted((REPOSITORY / "libs").rglob("*.py"))):
        data = path.read_bytes()
        for at in range(0, len(data) - EVENT_BYTES, EVENT_BYTES):
            yield EventBody(text_delta=TextDelta(stream=TEXT_STREAM_STDOUT, data=data[at : at + EVENT_BYTES]))


@dataclass
class Runs:
    """An adapter whose runs wait until they are told to end; their events are emitted from outside."""

    name: str = "exec"
    begun: asyncio.Queue[tuple[Assignment, Emit]] = field(default_factory=asyncio.Queue)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        """See Adapter."""
        self.begun.put_nowait((assignment, emit))
        await self.may_end.wait()
        return RunFinished(outcome=RUN_OUTCOME_SUCCEEDED)

    async def start(self, site: Site, count: int, retention_class: str = "") -> list[tuple[Assignment, Emit]]:
        """Start runs, and wait until they have begun."""
        for _ in range(count):
            await site.client.commands.start_exec(["sizing"], retention_class=retention_class)
        async with asyncio.timeout(PATIENCE_S):
            return [await self.begun.get() for _ in range(count)]


@asynccontextmanager
async def workers(site: Site, adapter: Runs, count: int, slots: int) -> AsyncIterator[None]:
    """`count` attached workers, for a block. Their runs end with it."""
    token = SharedToken(await site.tokens.get())
    attached = asyncio.Semaphore(0)

    def notify(notice: Notice) -> None:
        if isinstance(notice, Attached):
            attached.release()

    made = [
        # Each has a keepalive interval of its own because gRPC lets channels with the same options share a connection.
        Worker("sizing", [adapter], token, slots=slots, limits=_limits(keepalive_interval_ms=10_000 + n), notify=notify)
        for n in range(count)
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in made]
    try:
        async with asyncio.timeout(PATIENCE_S):
            for _ in made:
                await attached.acquire()
        yield
        adapter.may_end.set()
        for worker in made:
            worker.drain()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _limits(keepalive_interval_ms: int) -> WorkerLimits:
    return WorkerLimits(keepalive_interval_ms=keepalive_interval_ms, max_text_bytes=EVENT_BYTES)
