"""The model of a run says what the contract says: leases, ends, and who is told what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from . import explain
from .checker import UNKNOWN
from .explain import shortest_failure, show, until
from .run_model import (
    Answer,
    Append,
    Appended,
    Assign,
    Call,
    Cancel,
    Deadline,
    Done,
    Latest,
    LoseLease,
    Read,
    Refused,
    RunLog,
    RunModel,
    RunOperation,
    has_no_effect,
)

HELD = RunLog(seq=5)
FREE = replace(HELD, fenced=True)
CANCELING = replace(HELD, status="canceling")
ENDED = replace(HELD, status="succeeded")
LAST_TRY = replace(HELD, epoch=4)
FINISH = Append("end", "x", 1, finish="succeeded")


@pytest.mark.parametrize(
    ("state", "call", "answer", "after"),
    [
        (HELD, Append("k", "x", 2, epoch=2), Refused("stale_epoch", 1), HELD),
        (HELD, Append("k", "x", 2, worker="other"), Refused("stale_epoch", 1), HELD),
        (FREE, Append("k", "x", 2), Refused("stale_epoch", 1), FREE),
        (HELD, Assign("other"), Refused("stale_epoch", 1), HELD),
        (FREE, Assign("other"), Appended(6, 6, again=False), RunLog(6, worker="other", epoch=2)),
        (ENDED, Assign("other"), Refused("invalid_transition"), ENDED),
        (HELD, LoseLease("w", 1), Appended(6, 6, again=False), replace(FREE, seq=6)),
        (HELD, LoseLease("w", 2), Appended(5, 5, again=True), HELD),
        (FREE, LoseLease("w", 1), Appended(5, 5, again=True), FREE),
        (CANCELING, LoseLease("w", 1), Appended(6, 7, again=False), replace(FREE, seq=7, status="canceled")),
        (LAST_TRY, LoseLease("w", 4), Appended(6, 7, again=False), replace(FREE, seq=7, epoch=4, status="failed")),
        (HELD, Cancel(), Appended(6, 6, again=False), replace(CANCELING, seq=6)),
        (HELD, Cancel(), Done(), replace(CANCELING, seq=6)),
        (FREE, Cancel(), Appended(6, 7, again=False), replace(FREE, seq=7, status="canceled")),
        (CANCELING, Cancel(), Appended(5, 5, again=True), CANCELING),
        (ENDED, FINISH, Appended(5, 5, again=True), ENDED),
        (ENDED, replace(FINISH, finish="failed"), Refused("already_finished"), ENDED),
        (ENDED, Append("k", "x", 1), Refused("invalid_transition"), ENDED),
        (HELD, replace(FINISH, finish="canceled"), Refused("invalid_transition"), HELD),
        (CANCELING, Deadline(), Appended(6, 6, again=False), replace(FREE, seq=6, status="canceled")),
        (HELD, Deadline(), Appended(5, 5, again=True), HELD),
        (ENDED, Deadline(), Appended(5, 5, again=True), ENDED),
        (ENDED, Append("", "x", 1), Refused("missing_field"), ENDED),
        (ENDED, Read(), Latest(5, "succeeded"), ENDED),
    ],
)  # fmt: skip
def test_what_becomes_of_a_call(state: RunLog, call: Call, answer: Answer, after: RunLog) -> None:
    model = RunModel()
    assert model.step(state, call, answer) == after
    assert model.step(state, call, UNKNOWN) == after
    assert model.step(state, call, Refused("something_else")) is None


def test_a_finish_is_stored_under_its_key() -> None:
    ended = RunModel().step(HELD, FINISH, Appended(6, 6, again=False))
    assert ended is not None
    assert ended.status == "succeeded"
    assert RunModel().step(ended, FINISH, Appended(6, 6, again=True)) == ended
    assert RunModel().step(ended, replace(FINISH, content="y"), Refused("idempotency_conflict")) == ended


def test_a_failure_is_shown_without_what_it_does_not_need() -> None:
    history = [
        RunOperation("a", Append("k1", "x", 1), Appended(1, 1, again=False), 0.0, 1.0),
        RunOperation("b", Append("k1", "x", 1), Appended(1, 1, again=True), 2.0, 3.0),
        RunOperation("b", Read(), Latest(0), 4.0, 5.0),
        RunOperation("c", Append("k2", "x", 1), UNKNOWN, 4.5),
        RunOperation("a", Append("k3", "x", 1), Appended(2, 2, again=False), 6.0, 7.0),
    ]
    shortest = shortest_failure(RunModel(), history, has_no_effect)
    assert shortest == [history[0], history[2], history[3]]
    assert show(shortest).splitlines()[1] == "4000.00 –5000.00  b    Read() -> Latest(seq=0, status='running', epoch=1)"


def test_a_failure_that_takes_too_long_to_be_made_shorter_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MAX_STATES", 0)
    history = [
        RunOperation("a", Append("k1", "x", 1), Appended(1, 1, again=False), 0.0, 1.0),
        RunOperation("b", Read(), Latest(0), 4.0, 5.0),
    ]
    assert shortest_failure(RunModel(), history, has_no_effect) == history


def test_a_beginning_of_a_history_knows_no_later_answers() -> None:
    history = [
        RunOperation("a", Append("k1", "x", 1), Appended(1, 1, again=False), 0.0, 3.0),
        RunOperation("b", Read(), Latest(0), 1.0, 2.0),
        RunOperation("b", Read(), Latest(1), 4.0, 5.0),
    ]
    assert until(history, 2.0) == [RunOperation("a", Append("k1", "x", 1), UNKNOWN, 0.0), history[1]]
