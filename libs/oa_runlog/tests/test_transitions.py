"""The tables hold what the design says, and nothing that a final run would take."""

from __future__ import annotations

import pytest

from oa_runlog.events import EventType, Outcome
from oa_runlog.state import RunStatus
from oa_runlog.state.transitions import FINISHED, RUN_TRANSITIONS, TRIGGERS, allowed_triggers
from oa_runlog.workers import WORKER_TRANSITIONS, WorkerStatus, WorkerTrigger, next_worker_status

FINAL = [status for status in RunStatus if status.is_final]


def test_the_table_speaks_of_known_triggers_only() -> None:
    assert {what for _, what in RUN_TRANSITIONS} == {str(name) for name in TRIGGERS}
    assert len(TRIGGERS) == len(EventType) + len(Outcome) - 1


@pytest.mark.parametrize("status", FINAL)
def test_a_final_run_takes_nothing(status: RunStatus) -> None:
    assert allowed_triggers(status) == ()


def test_only_a_creation_makes_a_run() -> None:
    assert allowed_triggers(None) == (EventType.RUN_CREATED,)
    assert [before for before, what in RUN_TRANSITIONS if what == EventType.RUN_CREATED] == [None]


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.CANCELING])
def test_work_does_not_move_a_run(status: RunStatus) -> None:
    work = set(EventType) - {
        EventType.RUN_CREATED, EventType.RUN_STARTED, EventType.RUN_CANCEL_REQUESTED, EventType.RUN_FINISHED,
        EventType.INPUT_RECEIVED, EventType.REQUEST_ANSWERED, EventType.REQUEST_EXPIRED, EventType.ATTEMPT_FAILED,
        EventType.CHILD_STARTED, EventType.CHILD_FINISHED,
    }  # fmt: skip
    assert {RUN_TRANSITIONS[status, str(what)] for what in work} == {status}


def test_a_run_is_talked_to_until_it_is_to_end() -> None:
    heard = {before: after for (before, what), after in RUN_TRANSITIONS.items() if what == EventType.INPUT_RECEIVED}
    assert heard == {status: status for status in (RunStatus.CREATED, RunStatus.RUNNING)}


def test_a_finish_leads_to_its_outcome() -> None:
    finals = {(before, what): after for (before, what), after in RUN_TRANSITIONS.items() if what in FINISHED.values()}
    assert all(what == FINISHED[Outcome(after)] for (_, what), after in finals.items())
    canceled = [before for before, what in finals if what == FINISHED[Outcome.CANCELED]]
    assert canceled == [RunStatus.CANCELING], "nobody is canceled who was not asked to end"
    ended = {before for before, what in finals if what == FINISHED[Outcome.SUCCEEDED]}
    assert ended == {RunStatus.RUNNING, RunStatus.CANCELING}, "a finish that was on its way counts as what it is"


def test_every_status_can_be_left_except_the_final_ones() -> None:
    assert {before for before, _ in RUN_TRANSITIONS} == {None, *RunStatus} - set(FINAL)
    assert set(RUN_TRANSITIONS.values()) == set(RunStatus)


def test_a_worker_that_is_gone_can_only_attach_again() -> None:
    for gone in (WorkerStatus.LOST, WorkerStatus.STOPPED, None):
        allowed = [what for what in WorkerTrigger if next_worker_status(gone, what) is not None]
        assert allowed == [WorkerTrigger.ATTACH]
    assert set(WORKER_TRANSITIONS.values()) == set(WorkerStatus)


def test_a_draining_worker_takes_work_again_only_by_attaching() -> None:
    assert next_worker_status(WorkerStatus.DRAINING, WorkerTrigger.HEARTBEAT) is WorkerStatus.DRAINING
    assert next_worker_status(WorkerStatus.DRAINING, WorkerTrigger.ATTACH) is WorkerStatus.STARTING
