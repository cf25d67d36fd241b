"""The corpus bites: every single change of a table, and changes of the code around it, make a history fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog import workers as worker_machine
from oa_runlog.authority import decide
from oa_runlog.events import EventBody, ExecutorLost, QueuePolicy, RunEvent, RunFinished, RunStarted
from oa_runlog.proof.chain import chain_next
from oa_runlog.state import TOTAL_NAMES, RunState, RunStatus, Totals, reducer, transitions
from oa_runlog.state.transitions import RUN_TRANSITIONS, TRIGGERS
from oa_runlog.workers import WORKER_TRANSITIONS, WorkerStatus, WorkerTrigger
from tests.contract.histories import workers
from tests.contract.histories.check import check
from tests.contract.histories.history import load
from tests.contract.histories.record import FOLDER, corpus, current_release
from tests.contract.histories.teller import run_id_of

S = TypeVar("S")
T = TypeVar("T")

HISTORIES = [load(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*/runs/*.jsonl"))]
WALKS = [walk for path in sorted(FOLDER.glob("*/workers.jsonl")) for walk in workers.load(path.read_text("utf-8"))[1]]
# What the creation alone sets, with another value.
_FIXED: Mapping[str, Any] = {
    "run_id": "",
    "org_id": "",
    "user_id": "",
    "create_ns": 0,
    "queue": QueuePolicy(priority=1),
    "thread_id": "thr-2",
    "parent_run_id": "run_2",
}
# What is mutated comes after decoding, and decoding is most of the time.
_decode = cache(wire.decode_event)
_apply = reducer._apply


def _mutants(
    table: Mapping[tuple[S | None, T], S], statuses: tuple[S, ...], triggers: tuple[T, ...]
) -> Iterator[tuple[str, dict[tuple[S | None, T], S]]]:
    """Every table that differs from `table` in one entry: removed, with another target, or added with any target."""
    for before in (None, *statuses):
        for what in triggers:
            key: tuple[S | None, T] = (before, what)
            target = table.get(key)
            if target is not None:
                yield f"{before} {what} removed", {k: v for k, v in table.items() if k != key}
            for other in statuses:
                if other is not target:
                    yield f"{before} {what} -> {other}", {**table, key: other}


RUN_MUTANTS = dict(_mutants(RUN_TRANSITIONS, tuple(RunStatus), TRIGGERS))
WORKER_MUTANTS = dict(_mutants(WORKER_TRANSITIONS, tuple(WorkerStatus), tuple(WorkerTrigger)))


def _fails(replay: Callable[[], object]) -> bool:
    try:
        replay()
    except AssertionError:  # HistoryChanged, or one of the code's own
        return True
    return False


def _a_history_fails() -> bool:
    for history in HISTORIES:
        if _fails(lambda history=history: check(history, decode=_decode)):  # type: ignore[misc]
            # Neighbouring mutants are of the same cell: what notices one often notices the next.
            HISTORIES.remove(history)
            HISTORIES.insert(0, history)
            return True
    return False


def _a_walk_fails() -> bool:
    return any(_fails(lambda walk=walk: workers.check(walk)) for walk in WALKS)  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------- the tables


def test_unchanged_tables_fail_nothing() -> None:
    assert not _a_history_fails()
    assert not _a_walk_fails()


def test_mutants_are_all_there_are() -> None:
    """Each cell of a table of n statuses may hold n + 1 things, and all but the one that it holds are mutants."""
    assert len(RUN_MUTANTS) == 7 * 25 * 6
    assert len(WORKER_MUTANTS) == 6 * 5 * 5
    assert all(dict(mutant) != dict(RUN_TRANSITIONS) for mutant in RUN_MUTANTS.values())


def test_every_mutation_of_the_table_of_runs_makes_a_history_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    survivors = []
    for name, table in RUN_MUTANTS.items():
        monkeypatch.setattr(transitions, "RUN_TRANSITIONS", MappingProxyType(table))
        if not _a_history_fails():
            survivors.append(name)
    assert survivors == []


def test_every_mutation_of_the_table_of_workers_makes_a_walk_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    survivors = []
    for name, table in WORKER_MUTANTS.items():
        monkeypatch.setattr(worker_machine, "WORKER_TRANSITIONS", MappingProxyType(table))
        if not _a_walk_fails():
            survivors.append(name)
    assert survivors == []


def test_a_history_does_not_notice_what_it_does_not_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the checks above can fail, and it takes the whole corpus to pass them."""
    table = {**RUN_TRANSITIONS, (RunStatus.FAILED, "usage"): RunStatus.FAILED}
    monkeypatch.setattr(transitions, "RUN_TRANSITIONS", MappingProxyType(table))
    noticed = {history.run_id for history in HISTORIES if _fails(lambda history=history: check(history))}  # type: ignore[misc]
    assert noticed == {
        run_id_of(name) for name in ("failed", "lost_too_often", "failed_as_often_as_it_may", "never_started")
    }


# ------------------------------------------------------------------------------------------------- the reducer


@pytest.mark.parametrize("name", TOTAL_NAMES)
def test_a_total_that_is_not_counted_makes_a_history_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plus = Totals.plus
    monkeypatch.setattr(Totals, "plus", lambda self, **more: plus(self, **{k: v for k, v in more.items() if k != name}))
    assert _a_history_fails()


@pytest.mark.parametrize("name", [item.name for item in fields(RunState) if item.compare and item.name not in _FIXED])
def test_a_field_that_no_event_moves_makes_a_history_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = reducer.advance

    def stuck(state: RunState | None, event: RunEvent, data: bytes) -> RunState:
        after = advance(state, event, data)
        return after if state is None else replace(after, **{name: getattr(state, name)})

    monkeypatch.setattr(reducer, "advance", stuck)
    assert _a_history_fails()


@pytest.mark.parametrize(("name", "value"), _FIXED.items())
def test_a_field_that_the_creation_does_not_set_makes_a_history_fail(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = reducer._created
    monkeypatch.setattr(reducer, "_created", lambda *known: replace(created(*known), **{name: value}))
    assert _a_history_fails()


def _finish_that_never_fences(state: RunState, event: RunEvent) -> RunState:
    assert isinstance(event.body, RunFinished)
    return replace(state, finish=event.body, finish_ns=event.recorded_ns)


def _attempts_off_by_one(state: RunState, event: RunEvent) -> RunState:
    assert isinstance(event.body, RunStarted)
    body = event.body
    return replace(
        state, worker_id=body.worker_id, lease_epoch=body.lease_epoch, attempt=body.attempt + 1, fenced=False
    )


def _start_that_stays_fenced(state: RunState, event: RunEvent) -> RunState:
    assert isinstance(event.body, RunStarted)
    body = event.body
    return replace(state, worker_id=body.worker_id, lease_epoch=body.lease_epoch, attempt=body.attempt)


def _finish_without_its_result(state: RunState, event: RunEvent) -> RunState:
    after = _apply(state, event)
    assert after.finish is not None
    return replace(after, finish=replace(after.finish, result_json=""))


@pytest.mark.parametrize(
    ("kind", "mutant"),
    [
        (RunStarted, _attempts_off_by_one),
        (RunStarted, _start_that_stays_fenced),
        (RunFinished, _finish_that_never_fences),
        (RunFinished, _finish_without_its_result),
        (ExecutorLost, lambda state, _: state),
    ],
    ids=[
        "attempts off by one",
        "a start that stays fenced",
        "a finish that never fences",
        "a finish without its result",
        "a loss that never fences",
    ],
)
def test_a_changed_meaning_of_an_event_makes_a_history_fail(
    kind: type[EventBody], mutant: Callable[[RunState, RunEvent], RunState], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = reducer._apply
    monkeypatch.setattr(
        reducer, "_apply", lambda state, event: (mutant if isinstance(event.body, kind) else apply)(state, event)
    )
    assert _a_history_fails()


def test_a_chain_over_other_bytes_makes_a_history_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducer, "chain_next", lambda head, data: chain_next(head, data[:-1]))
    assert _a_history_fails()


# ------------------------------------------------------------------------------------------------- the decisions


def _recorded_otherwise() -> bool:
    """Today's decisions on the same commands are not those that were recorded of this release."""
    try:
        files = corpus(current_release())
    except (AssertionError, Refusal):
        return True
    return any((FOLDER / file.path).read_text("utf-8") != file.text for file in files)


def _patched(name: str, **change: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """`decide`'s use of an event type, with some of its fields computed otherwise."""
    made = getattr(decide, name)

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def other(*values: Any, **named: Any) -> Any:
            body = made(*values, **named)
            return replace(body, **{field: how(getattr(body, field)) for field, how in change.items()})

        monkeypatch.setattr(decide, name, other)

    return patch


def _requeues_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    lose = decide._lose_lease
    monkeypatch.setattr(
        decide,
        "_lose_lease",
        lambda state, command, limits, now_ns: lose(
            state, command, replace(limits, max_requeues=limits.max_requeues + 1), now_ns
        ),
    )


def _says_otherwise_why_it_was_canceled(monkeypatch: pytest.MonkeyPatch) -> None:
    canceled = decide._canceled
    monkeypatch.setattr(decide, "_canceled", lambda reason, message: canceled("cancelled", message))


def _deadline_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    due = decide._cancel_deadline
    monkeypatch.setattr(
        decide,
        "_cancel_deadline",
        lambda state, limits, now_ns: due(state, replace(limits, cancel_deadline_ms=0), now_ns),
    )


@pytest.mark.parametrize(
    "patch",
    [
        _patched("RunStarted", attempt=lambda attempt: attempt + 1),
        _patched("RunStarted", lease_epoch=lambda epoch: epoch + 1),
        _patched("ExecutorLost", requeued=lambda requeued: not requeued),
        _patched("ExecutorLost", attempt=lambda attempt: attempt - 1),
        _says_otherwise_why_it_was_canceled,
        _requeues_once_more,
        _deadline_without_waiting,
    ],
    ids=[
        "attempt off by one",
        "lease epoch off by one",
        "requeued turned round",
        "lost attempt off by one",
        "another word for the reason",
        "one requeue more",
        "a deadline that is always over",
    ],
)
def test_another_decision_is_not_what_was_recorded(
    patch: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _recorded_otherwise()
    patch(monkeypatch)
    assert _recorded_otherwise()
