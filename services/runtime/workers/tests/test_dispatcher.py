"""Who gets a waiting run when workers leave at that very moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from oa_base.refusal import Refusal
from oa_platform.config.shared import QuarantineSettings
from oa_runlog.authority.commands import AssignRun, CreateRun
from oa_runlog.events import Concurrency, ExecSpec, QueuePolicy, RunSpec, ThreadPolicy
from oa_runlog.workers import WorkerStatus
from services.runtime.log.domain.batch import Applied
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.dispatcher import Dispatcher
from services.runtime.workers.app.ports import Queue, QueueRules, WaitingRun, WorkerRecord
from services.runtime.workers.limits import WorkerLimits

RULES = QueueRules([])
SPEC = RunSpec("exec", ExecSpec(("true",)))


class OneLog:
    """Takes note of what is assigned."""

    def __init__(self) -> None:
        self.assigned: list[AssignRun] = []
        self.refusal: Refusal | None = None
        """What everything is answered with, if it is set."""

    def submit(self, command: AssignRun | CreateRun) -> asyncio.Future[Applied]:
        if isinstance(command, AssignRun):
            self.assigned.append(command)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Applied] = loop.create_future()
        # In a later turn of the loop, as the real one.
        if self.refusal is not None:
            loop.call_soon(answer.set_exception, self.refusal)
        else:
            loop.call_soon(answer.set_result, Applied(command.run_id, 2, 2, repeated=False, state=None))
        return answer


class OneRun:
    """One run waits, and something happens while the database is asked for it."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    async def waiting_runs(self, *_asked: object) -> Queue:
        self._meanwhile()
        return Queue([WaitingRun("run_1", "usr_1", SPEC)], others=False)


class Attached:
    """The workers of a replica."""

    def __init__(self, *attachments: Attachment) -> None:
        self.by_id = {attachment.worker.worker_id: attachment for attachment in attachments}
        self.on_run_waits: Callable[[], None]
        self.told_again: list[Attachment] = []

    def tell_again(self, attachment: Attachment) -> None:
        self.told_again.append(attachment)


def attachment(worker_id: str, slots: int = 1, org_id: str = "org_1") -> Attachment:
    worker = WorkerRecord(worker_id, "sva_1", org_id, "n", ("exec",), slots, WorkerStatus.RUNNING)
    attachment = Attachment(worker, "att_1", time.monotonic(), 8)
    attachment.is_restored = True
    return attachment


def drains(one: Attachment) -> None:
    one.status = WorkerStatus.DRAINING


@pytest.mark.parametrize("leaves", [Attachment.end, drains, lambda _: None], ids=["left", "drains", "stays"])
async def test_a_worker_that_leaves_while_the_database_is_asked_gets_nothing(
    leaves: Callable[[Attachment], None],
) -> None:
    log, worker = OneLog(), attachment("wrk_1")
    dispatcher = Dispatcher(
        cast("Any", log),
        cast("Any", Attached(worker)),
        cast("Any", OneRun(lambda: leaves(worker))),
        WorkerLimits(),
        RULES,
    )
    await dispatcher.dispatch()
    stays = not worker.is_over and worker.status is WorkerStatus.RUNNING
    assert log.assigned == ([AssignRun("run_1", "wrk_1")] if stays else [])


async def test_a_worker_that_left_while_another_was_served_gets_nothing() -> None:
    log, first, second = OneLog(), attachment("wrk_1"), attachment("wrk_2")
    dispatcher = Dispatcher(
        cast("Any", log), cast("Any", Attached(first, second)), cast("Any", OneRun(second.end)), WorkerLimits(), RULES
    )
    await dispatcher.dispatch()
    assert log.assigned == [AssignRun("run_1", "wrk_1")]


async def test_a_worker_whose_runs_only_wait_gets_more_than_it_has_slots() -> None:
    log, worker = OneLog(), attachment("wrk_1")
    dispatcher = Dispatcher(
        cast("Any", log), cast("Any", Attached(worker)), cast("Any", OneRun(lambda: None)), WorkerLimits(), RULES
    )
    worker.hold("run_0", 1)
    await dispatcher.dispatch()
    assert log.assigned == []
    worker.capacity = 2
    await dispatcher.dispatch()
    assert log.assigned == [AssignRun("run_1", "wrk_1")]
    worker.hold("run_1", 1)
    worker.capacity = 1
    assert worker.free_slots == 0, "what it has too many it keeps"


# ---------------------------------------------------------------------------------------------------- new runs


class Waiting:
    """What a look at the queue finds; something may happen while it is made."""

    def __init__(
        self,
        others: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
        runs: Sequence[WaitingRun] = (),
    ) -> None:
        self.others = others
        self.runs = runs
        self.meanwhile = meanwhile
        self.looks = 0

    async def waiting_runs(self, *_asked: object) -> Queue:
        self.looks += 1
        self.meanwhile()
        return Queue(self.runs, self.others)


class Desk:
    """A dispatcher with workers of one org that take two runs each."""

    def __init__(self, *worker_ids: str, waiting: Waiting | None = None) -> None:
        self.log = OneLog()
        self.attached = Attached(*(attachment(one, slots=2) for one in worker_ids))
        self.waiting = waiting or Waiting()
        parts = cast("Any", self.log), cast("Any", self.attached), cast("Any", self.waiting)
        self.dispatcher = Dispatcher(*parts, WorkerLimits(), RULES)
        self._created = 0

    async def create(self, spec: RunSpec = SPEC, org_id: str = "org_1") -> str:
        """Create a run; the worker that it was given to at once, or ""."""
        self._created += 1
        before = len(self.log.assigned)
        run_id = f"run_{self._created}"
        await self.dispatcher.create(CreateRun.of(run_id, org_id, "usr_1", spec, run_id))
        given = self.log.assigned[before:]
        assert [one.run_id for one in given] in ([], [run_id])
        return given[0].worker_id if given else ""


async def test_a_new_run_is_given_away_at_once_while_nothing_waits() -> None:
    desk = Desk("wrk_1", "wrk_2")
    assert await desk.create() == "", "nobody has looked yet"
    await desk.dispatcher.dispatch()
    assert [await desk.create() for _ in range(3)] == ["wrk_1", "wrk_2", "wrk_1"], "in turns"
    looks = desk.waiting.looks
    await desk.dispatcher.dispatch()
    assert desk.waiting.looks == looks, "who knows that nothing waits need not look"


async def test_workers_that_take_the_same_are_looked_for_once() -> None:
    desk = Desk("wrk_1", "wrk_2", "wrk_3")
    await desk.dispatcher.dispatch()
    assert desk.waiting.looks == 1
    assert [await desk.create() for _ in range(3)] == ["wrk_1", "wrk_2", "wrk_3"]
    desk.waiting.others = True
    desk.attached.on_run_waits()
    await desk.dispatcher.dispatch()
    assert desk.waiting.looks == 4, "where something waits, everybody has to be asked for"


async def test_an_org_with_many_workers_lets_the_others_have_their_turns() -> None:
    asked: list[str] = []

    class Many:
        """So many runs wait in each org that every worker has to be asked for."""

        async def waiting_runs(self, org_id: str, *_asked: object) -> Queue:
            asked.append(org_id)
            return Queue([], others=True)

    workers = [attachment(f"wrk_{number}", slots=2, org_id="flood") for number in range(20)]
    busy = attachment("wrk_quiet", slots=2, org_id="quiet")
    busy.hold("run_0", 1)
    parts = cast("Any", OneLog()), cast("Any", Attached(*workers, busy)), cast("Any", Many())
    await Dispatcher(*parts, WorkerLimits(), RULES).dispatch()
    assert asked == ["flood", "quiet"] + ["flood"] * 19


@pytest.mark.parametrize("reason", ["invalid_transition", "overloaded"])
async def test_a_run_that_could_not_be_given_away_still_waits(reason: str) -> None:
    desk = Desk("wrk_1", waiting=Waiting(runs=[WaitingRun("run_old", "usr_1", SPEC)]))
    desk.log.refusal = Refusal(reason, "not now")
    with suppress(Refusal):
        await desk.dispatcher.dispatch()
    desk.log.refusal, desk.log.assigned = None, []
    assert await desk.create() == "", "it would overtake"
    await desk.dispatcher.dispatch()
    assert desk.log.assigned == [AssignRun("run_old", "wrk_1")], "and is looked for again"


async def test_a_worker_that_has_the_run_already_is_told_of_it() -> None:
    """It was given the run twice at once, and whoever follows the log left it to the second one to tell it."""
    desk = Desk("wrk_1", waiting=Waiting(runs=[WaitingRun("run_old", "usr_1", SPEC)]))
    desk.log.refusal = Refusal("stale_epoch", "another worker holds the run")
    await desk.dispatcher.dispatch()
    assert desk.attached.told_again == [desk.attached.by_id["wrk_1"]]


async def test_a_new_run_does_not_overtake_one_that_waits() -> None:
    desk = Desk("wrk_1", waiting=Waiting(others=True))
    await desk.dispatcher.dispatch()
    assert await desk.create() == ""
    desk.waiting.others = False
    await desk.dispatcher.dispatch()
    assert await desk.create() == "wrk_1"
    desk.attached.on_run_waits()
    assert await desk.create() == ""


async def test_what_begins_to_wait_during_a_look_is_not_overtaken() -> None:
    desk = Desk("wrk_1")
    desk.waiting.meanwhile = desk.attached.on_run_waits
    await desk.dispatcher.dispatch()
    assert await desk.create() == ""


WAITS_BY_ITSELF = [
    replace(SPEC, queue=QueuePolicy(not_before_ns=1)),
    replace(SPEC, queue=QueuePolicy(concurrency=Concurrency("key", 1))),
    replace(SPEC, thread_id="thr_1", thread_policy=ThreadPolicy.ENQUEUE),
]


@pytest.mark.parametrize("spec", WAITS_BY_ITSELF, ids=["time", "concurrency", "thread"])
async def test_a_run_that_may_have_to_wait_has_its_turn_in_a_look(spec: RunSpec) -> None:
    desk = Desk("wrk_1")
    await desk.dispatcher.dispatch()
    assert await desk.create(spec) == ""
    assert await desk.create() == "wrk_1"


async def test_only_a_worker_that_may_take_it_gets_a_new_run() -> None:
    desk = Desk("wrk_1")
    await desk.dispatcher.dispatch()
    assert await desk.create(org_id="org_2") == ""
    assert await desk.create(replace(SPEC, adapter="other")) == ""
    worker = desk.attached.by_id["wrk_1"]
    worker.hold("run_a", 1)
    worker.giving |= {"run_a", "run_b"}  # one of them is there already
    assert await desk.create() == ""
    worker.giving.clear()
    assert await desk.create() == "wrk_1"
    drains(worker)
    assert await desk.create() == ""


class Unending(Waiting):
    """Runs that wait and can't be given away because of a defect, each time."""

    async def waiting_runs(self, *asked: Any) -> Queue:
        self.looks += 1
        runs = [WaitingRun(f"run_{number}", "usr_1", SPEC) for number in range(3)]
        return Queue([run for run in runs if run.run_id not in asked[-1].ids], others=False)

    async def next_time_ms(self, _within_ms: int) -> None: ...


async def test_more_runs_with_a_defect_than_are_left_out_make_no_look_follow_on_another() -> None:
    log, waiting = OneLog(), Unending()
    log.refusal = Refusal("internal", "a defect of ours")
    limits = WorkerLimits(dispatch_interval_ms=3_600_000, quarantine=QuarantineSettings(max_things=1))
    worker = Attached(attachment("wrk_1", slots=9))
    dispatcher = Dispatcher(cast("Any", log), cast("Any", worker), cast("Any", waiting), limits, RULES)
    worker.on_run_waits()
    running = asyncio.create_task(dispatcher.run())
    for _ in range(200):
        await asyncio.sleep(0)
    running.cancel()
    assert 0 < waiting.looks < 5
