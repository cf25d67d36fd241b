"""Adapters execute runs. Implement `Adapter`, give it to `Worker`, and runs that ask for its name come to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from oa_base.refusal import Refusal
from oa_worker.sdk.authority_clock import own_now
from openagents.runtime.v1.event_pb2 import EventBody, RunEvent, RunFinished, RunSpec
from openagents.runtime.v1.worker_service_pb2 import HeldLease, StartChildRequest

Emit = Callable[[EventBody], Awaitable[None]]
"""Hands an event to the run's log, in order. Waits while the log is behind; raises Refusal once it takes no more."""


class News:
    """Announces that there is something new: every waiter is woken once for each time."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self.count = 0
        """How often `tell` was called."""

    def tell(self) -> None:
        """Announce that there is something new, or may be."""
        self.count += 1
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def after(self, count: int) -> None:
        """Return once `tell` was called more than `count` times."""
        while self.count <= count:
            await self._told.wait()


class CancelSignal:
    """Set once somebody asked for the run to end."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        self.deadline_ms = 0

    def request(self, reason: str, deadline_ms: int) -> None:
        """Set the signal; the first request counts. `deadline_ms`: after that the authority ends the run by itself."""
        if not self._event.is_set():
            self.reason, self.deadline_ms = reason, deadline_ms
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether it is set."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when it is set."""
        await self._event.wait()


class ReadRun(Protocol):
    """Reads the log of a run that this worker holds."""

    def __call__(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        """Return the run's events of these types after `after_seq`, as they are stored, up to the log's current end.
        With `newest_only`, return only the newest of them.

        Waits while the authority is away. Raises Refusal `stale_epoch` once the run is no longer this worker's.
        """
        ...


async def _nothing(
    lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
) -> AsyncIterator[bytes]:
    """`read` of an assignment without a log."""
    none: tuple[bytes, ...] = ()
    for event in none:
        yield event


async def _at_once() -> None:
    """`stored` of an assignment without a log."""


async def _no_time(lease: HeldLease, request_id: str) -> None:
    """`expire` of an assignment without a log."""


async def _no_child(request: StartChildRequest) -> str:
    """`start_child` of an assignment without an authority."""
    raise Refusal("unavailable", "there is no authority to start a run; run the agent on a worker")


@dataclass(frozen=True)
class Assignment:
    """A run to execute. `attempt` is 1, and higher if a worker was lost with it or it failed before.

    `read` returns what is in its log already, and `stored` returns once everything that was emitted is there too.
    `now` tells the authority's time, in UTC. `news` is told when others have written to the log. `expire` ends the time
    of a request; `start_child` starts another run, and returns its id. Within `waiting` others may have the run's slot.
    """

    run_id: str
    lease_epoch: int
    attempt: int
    spec: RunSpec
    cancel: CancelSignal = field(default_factory=CancelSignal)
    read: ReadRun = _nothing
    stored: Callable[[], Awaitable[None]] = _at_once
    news: News = field(default_factory=News)
    expire: Callable[[HeldLease, str], Awaitable[None]] = _no_time
    start_child: Callable[[StartChildRequest], Awaitable[str]] = _no_child
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    now: Callable[[], datetime] = own_now

    async def events(self, *types: str, after_seq: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Return the events of these types that the run's log now has after `after_seq`. See `ReadRun`."""
        async for data in self.read(self.lease, after_seq, types):
            yield RunEvent.FromString(data)

    async def newest(self, type: str) -> RunEvent | None:
        """Return the newest event of this type that the run's log now has; None if there is none. See `ReadRun`."""
        async for data in self.read(self.lease, 0, [type], True):
            return RunEvent.FromString(data)
        return None

    @property
    def lease(self) -> HeldLease:
        """The lease under which this worker has the run."""
        return HeldLease(run_id=self.run_id, lease_epoch=self.lease_epoch)


class Adapter(Protocol):
    """Executes runs of one kind."""

    @property
    def name(self) -> str:
        """The name that `RunSpec.adapter` asks for."""

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        """Execute the run and return how it ended; events go to `emit` as they happen.

        Watch `assignment.cancel` and end soon after it is set. Cancellation of the task means that the run is no
        longer ours: stop at once, leave nothing running, emit nothing. A Refusal that leaves `run` fails the run
        with its reason; any other exception, including an exit, is a defect and fails it with "adapter_error".
        """
