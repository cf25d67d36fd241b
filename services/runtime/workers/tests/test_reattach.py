"""A worker attaches while runs move: what its leases were when they were read may be over by then, or not be all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from oa_base.identity import Principal, PrincipalKind
from oa_runlog import wire
from oa_runlog.events import EventBody, ExecSpec, ExecutorLost, RunCancelRequested, RunSpec, RunStarted, event_type
from oa_runlog.state import RunState, RunStatus
from oa_runlog.workers import WorkerStatus
from services.runtime.log.domain.records import LogRecord, RunRecord
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.dispatcher import Dispatcher
from services.runtime.workers.app.ports import LeaseRecord, QueueRules, WorkerRecord
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.notices import (
    Assignment,
    CancelNotice,
    HeldLease,
    Hello,
    LeaseLostNotice,
    Notice,
)
from services.runtime.workers.limits import WorkerLimits

RUN = "run_01JD0000000000000000000000"
WORKER = "wrk_01JD0000000000000000000000"
OTHER = "wrk_01JD0000000000000000000001"
LIMITS = WorkerLimits()
DEADLINE_MS = 10_000
SPEC = RunSpec("exec", ExecSpec(("true",)))
SOMEBODY = Principal(PrincipalKind.WORKER, "sva_1", "org_1")


def as_known(worker_id: str) -> WorkerRecord:
    return WorkerRecord(worker_id, "sva_1", "org_1", "n", ("exec",), 1, WorkerStatus.RUNNING)


class Scene:
    """The workers of a replica, over one run: its log, who has which lease of it, and what happens during a read."""

    def __init__(self) -> None:
        self.attached = AttachedWorkers(self, LIMITS, DEADLINE_MS)
        self.workers = Workers(cast("Any", None), self.attached, cast("Any", self), LIMITS)
        state = RunState(RUN, "org_1", "usr_1", RunStatus.CREATED, 1, b"", 0)
        self.stored = RunRecord(state, SPEC)
        self.after_leases: Callable[[], None] = lambda: None
        """Called when the leases were read and are on their way."""
        self.before_run: Callable[[], None] = lambda: None
        """Called when the run is about to be read."""

    # ------------------------------------------------------------------------------------------------- the store

    async def worker(self, worker_id: str) -> WorkerRecord:
        return as_known(worker_id)

    async def reattach_worker(self, *_: object) -> bool:
        return True

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        state = self.stored.state
        found = [LeaseRecord(RUN, worker_id, state.lease_epoch)] if state.holder == worker_id else []
        self.after_leases()
        await asyncio.gather(*self.attached._telling)
        return found

    async def run(self, run_id: str) -> RunRecord:
        self.before_run()
        return self.stored

    # ------------------------------------------------------------------------------------------------- the log

    def starts(self, worker_id: str = WORKER) -> None:
        epoch = self.stored.state.lease_epoch + 1
        self._store(RunStarted(worker_id, epoch, epoch))
        self._is(worker_id=worker_id, lease_epoch=epoch, attempt=epoch, fenced=False, status=RunStatus.RUNNING)

    def is_lost(self) -> None:
        state = self.stored.state
        self._store(ExecutorLost(state.worker_id, state.lease_epoch, state.attempt, requeued=True))
        self._is(fenced=True)

    def is_canceled(self) -> None:
        self._store(RunCancelRequested("usr_1", "enough"))
        self._is(status=RunStatus.CANCELING, cancel_requested_ns=1, cancel_reason="enough")

    def moves_to(self, worker_id: str) -> None:
        self.is_lost()
        self.starts(worker_id)

    def _is(self, **changes: Any) -> None:
        self.stored = replace(self.stored, state=replace(self.stored.state, **changes))

    def _store(self, body: EventBody) -> None:
        seq = self.stored.state.latest_seq + 1
        self._is(latest_seq=seq)
        data = wire.encode_event(RUN, seq, 0, 0, wire.encode_body(body))
        self.attached.on_records([LogRecord(seq, RUN, seq, event_type(body), data)])

    # ------------------------------------------------------------------------------------------------- workers

    async def attach(self, *epochs: int, worker_id: str = WORKER) -> Attachment:
        """A worker that believes to have the run under these leases."""
        held = [HeldLease(RUN, epoch) for epoch in epochs]
        return await self.workers.attach(SOMEBODY, Hello(worker_id, "n", ("exec",), 1, held))

    async def told(self, attachment: Attachment) -> list[Notice]:
        """What is to be said to it, once nothing more is being read for that."""
        await asyncio.gather(*self.attached._telling)
        outbox = attachment.outbox
        return [notice for _ in range(outbox.qsize()) if (notice := outbox.get_nowait()) is not None]


def assignments(notices: list[Notice]) -> list[int]:
    assert all(isinstance(notice, Assignment) for notice in notices), notices
    return [notice.lease_epoch for notice in notices if isinstance(notice, Assignment)]


async def test_a_run_that_comes_while_the_leases_are_read_is_told_once() -> None:
    scene = Scene()
    scene.after_leases = scene.starts
    attachment = await scene.attach()
    scene.attached.tell_again(attachment)
    assert assignments(await scene.told(attachment)) == [1]


async def test_a_lease_that_ends_while_it_is_read_is_not_held() -> None:
    scene = Scene()
    scene.starts()
    scene.after_leases = scene.is_lost
    attachment = await scene.attach(1)
    assert await scene.told(attachment) == [LeaseLostNotice(RUN, 1)]
    assert attachment.leases == {}
    assert attachment.free_slots == 1


async def test_a_lease_that_ends_while_it_is_read_is_not_told_as_a_newer_one() -> None:
    scene = Scene()
    scene.starts()
    scene.after_leases = lambda: scene.moves_to(OTHER)
    attachment = await scene.attach()
    assert (await scene.told(attachment), attachment.leases) == ([], {})


async def test_who_has_got_a_run_meanwhile_goes_on_hearing_of_it() -> None:
    scene = Scene()
    scene.starts()
    other = await scene.attach(worker_id=OTHER)
    scene.after_leases = lambda: scene.moves_to(OTHER)
    await scene.attach()
    scene.is_canceled()
    assert scene.attached._holders == {RUN: other}
    assert other.leases[RUN].cancel == CancelNotice(RUN, 2, "enough", DEADLINE_MS)


async def test_a_lease_is_not_replaced_by_the_older_one_that_was_read() -> None:
    scene = Scene()
    scene.starts()
    scene.after_leases = lambda: scene.moves_to(WORKER)
    attachment = await scene.attach(1)
    lost, *rest = await scene.told(attachment)
    assert lost == LeaseLostNotice(RUN, 1)
    assert assignments(rest) == [2]


async def test_nobody_holds_anything_over_a_stream_that_a_newer_one_has_ended() -> None:
    scene = Scene()
    scene.starts()
    newer: list[Attachment] = []

    def overtake() -> None:
        scene.after_leases = lambda: None
        attachment = Attachment(as_known(WORKER), "att_2", 0.0, 8)
        scene.attached.add(attachment)
        newer.append(attachment)

    scene.after_leases = overtake
    older = await scene.attach(1)
    assert older.leases == {}
    await scene.attached.restore(newer[0], await scene.leases_of(WORKER), [HeldLease(RUN, 1)])
    assert scene.attached._holders == {RUN: newer[0]}


async def test_a_cancel_that_comes_while_the_run_is_read_is_told_once() -> None:
    scene = Scene()
    scene.starts()

    def cancel() -> None:
        if scene.stored.state.cancel_requested_ns is None:
            scene.is_canceled()

    scene.before_run = cancel
    attachment = await scene.attach(1)
    assert await scene.told(attachment) == [CancelNotice(RUN, 1, "enough", DEADLINE_MS)]


@pytest.mark.parametrize("epochs", [(), (1,)], ids=["that it does not know", "that it knows"])
async def test_a_worker_gets_no_run_before_it_is_known_what_it_holds(epochs: tuple[int, ...]) -> None:
    """It has one slot, and a run is in it."""
    scene = Scene()
    scene.starts()
    dispatcher = Dispatcher(cast("Any", None), scene.attached, cast("Any", scene), LIMITS, QueueRules([]))
    found: list[bool] = []
    scene.after_leases = lambda: found.append(dispatcher._takes_runs(scene.attached.by_id[WORKER]))
    attachment = await scene.attach(*epochs)
    assert found == [False]
    assert not dispatcher._takes_runs(attachment)
    scene.is_lost()
    assert dispatcher._takes_runs(attachment)
