"""The form of a state says all that the state says, in one way, and grows without moving what it said before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from oa_runlog.events import Concurrency, ExecResult, Outcome, QueuePolicy, RetryPolicy, RunFinished
from oa_runlog.state import MAX_TOTAL, RunState, RunStatus, Totals
from oa_runlog.state.form import state_form, state_hash

NOON_NS = 1_795_608_000 * 10**9
FULL = RunState(
    run_id="run_a",
    org_id="org_a",
    user_id="usr_a",
    status=RunStatus.CANCELED,
    latest_seq=7,
    chain_head=b"\x01\xff",
    create_ns=NOON_NS,
    lease_epoch=2,
    worker_id="wrk_a",
    fenced=True,
    attempt=2,
    cancel_requested_ns=NOON_NS + 1,
    cancel_reason="enough",
    finish_ns=NOON_NS + 2,
    finish=RunFinished(Outcome.CANCELED, "canceled", "stopped", ExecResult(exit_code=0, signal=15)),
    totals=Totals(text_bytes=3, tool_calls=MAX_TOTAL),
    paced_until_ns=5,
)
YOUNG = RunState("run_a", "org_a", "usr_a", RunStatus.CREATED, 1, b"\x01", NOON_NS)

# One other value for every field of a state.
CHANGES: dict[str, Any] = {
    "run_id": "run_b",
    "org_id": "org_b",
    "user_id": "usr_b",
    "status": RunStatus.FAILED,
    "latest_seq": 8,
    "chain_head": b"\x02\xff",
    "create_ns": NOON_NS + 3,
    "lease_epoch": 3,
    "worker_id": "wrk_b",
    "fenced": False,
    "attempt": 1,
    "cancel_requested_ns": None,
    "cancel_reason": "",
    "finish_ns": None,
    "finish": RunFinished(Outcome.CANCELED, "canceled", "stopped", ExecResult(exit_code=None, signal=15)),
    "totals": Totals(text_bytes=3, tool_calls=MAX_TOTAL - 1),
    "queue": QueuePolicy(retry=RetryPolicy(3, 1_000, 0, ("timeout",))),
    "not_before_ns": NOON_NS + 4,
    "deadline_ns": NOON_NS + 5,
    "failures": 1,
    "thread_id": "thr_1",
    "parent_run_id": "run_c",
}


def test_the_form_of_a_full_state() -> None:
    assert state_form(FULL) == {
        "run_id": "run_a",
        "org_id": "org_a",
        "user_id": "usr_a",
        "status": "canceled",
        "latest_seq": 7,
        "chain_head": "01ff",
        "create_ns": "1795608000000000000",
        "lease_epoch": 2,
        "worker_id": "wrk_a",
        "fenced": True,
        "attempt": 2,
        "cancel_requested_ns": "1795608000000000001",
        "cancel_reason": "enough",
        "finish_ns": "1795608000000000002",
        "finish": {
            "outcome": "canceled",
            "reason": "canceled",
            "message": "stopped",
            "exec": {"exit_code": 0, "signal": 15},
        },
        "totals": {"text_bytes": 3, "tool_calls": MAX_TOTAL},
    }


def test_members_with_their_default_are_left_out() -> None:
    form = state_form(YOUNG)
    assert isinstance(form, dict)
    assert set(form) == {"run_id", "org_id", "user_id", "status", "latest_seq", "chain_head", "create_ns"}


def test_every_field_that_is_compared_moves_the_hash() -> None:
    assert set(CHANGES) == {item.name for item in fields(RunState) if item.compare}
    hashes = [state_hash(replace(FULL, **{name: value})) for name, value in CHANGES.items()]
    assert len({state_hash(FULL), *hashes}) == len(CHANGES) + 1


def test_the_form_of_a_policy() -> None:
    retry = RetryPolicy(3, initial_delay_ms=1_000, reasons=("timeout", "agent_error"))
    form = state_form(replace(YOUNG, queue=QueuePolicy(5, concurrency=Concurrency("gpu", 1), retry=retry)))
    assert isinstance(form, dict)
    assert form["queue"] == {
        "priority": 5,
        "concurrency": {"key": "gpu", "limit": 1},
        "retry": {"max_failures": 3, "initial_delay_ms": 1_000, "reasons": ["timeout", "agent_error"]},
    }


def test_pacing_takes_no_part() -> None:
    assert state_hash(replace(FULL, paced_until_ns=99)) == state_hash(FULL)


def test_a_field_added_later_with_a_default_moves_no_hash_until_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Later(RunState):
        pauses: int = 0

    values = {item.name: getattr(FULL, item.name) for item in fields(RunState)}
    assert state_hash(Later(**values)) == state_hash(FULL)
    assert state_hash(Later(**values, pauses=1)) != state_hash(FULL)


def test_numbers_of_any_size_have_a_form() -> None:
    """A worker measures what it likes: 2^64 - 1 milliseconds are no reason to have no hash."""
    endless = RunFinished(Outcome.FAILED, exec=ExecResult(duration_ms=2**64 - 1))
    form = state_form(replace(YOUNG, finish=endless))
    assert isinstance(form, dict)
    assert form["finish"] == {"outcome": "failed", "exec": {"duration_ms": str(2**64 - 1)}}


def test_no_run_has_a_hash_too() -> None:
    assert state_form(None) is None
    assert state_hash(None) == hashlib.sha256(b"null").hexdigest()


def test_what_has_no_form_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(TypeError, match="float"):
        state_hash(replace(YOUNG, attempt=1.5))  # type: ignore[arg-type]
