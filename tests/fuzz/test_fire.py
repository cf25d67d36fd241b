"""The checks bite: each kind of wrong answer is seen."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
from tests.fuzz.doors import Outcome
from tests.fuzz.fire import Tally
from tests.fuzz.mutate import BROKEN_RULE, MARK, Mutation
from tests.fuzz.watch import defects_in, refusals_in

MUTATION = Mutation("too long", {"name": MARK}, BROKEN_RULE, "name")
GOOD = Outcome("INVALID_ARGUMENT", Refusal("invalid_value", "too long", field="name"), "too long")


def _problems(outcome: Outcome) -> list[str]:
    tally = Tally()
    tally.look_closer(MUTATION, outcome)
    return tally.problems


def test_a_right_answer_passes() -> None:
    assert _problems(GOOD) == []


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome("OK", None), "was taken"),
        (Outcome("INTERNAL", Refusal("internal", "")), "INTERNAL"),
        (Outcome("UNKNOWN", GOOD.refusal), "UNKNOWN"),
        (Outcome("UNAVAILABLE", Refusal("unavailable", "")), "UNAVAILABLE"),
        (Outcome("NOT_FOUND", Refusal("not_found", "", field="name")), "refused for not_found"),
        (Outcome("INVALID_ARGUMENT", Refusal("invalid_value", "", field="title")), "names the field 'title'"),
        (Outcome("NOT_FOUND", GOOD.refusal), "NOT_FOUND"),
        (Outcome("INVALID_ARGUMENT", GOOD.refusal, f"{MARK} is too long"), "echoes"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.status,
)
def test_a_wrong_answer_is_seen(outcome: Outcome, says: str) -> None:
    assert any(says in problem for problem in _problems(outcome))


@pytest.mark.parametrize(
    ("nobodys", "alike"),
    [
        (Refusal("not_found", "no org_01JD8V0000000000000000000B", field="org_id"), True),
        (Refusal("not_found", "no org_01JD8V0000000000000000000A"), False),
        (Refusal("not_found", "no such org", field="org_id"), False),
        (Refusal("not_found", "no org_01JD8V0000000000000000000A", field="org_id", metadata={"seq": "1"}), False),
        (Refusal("not_found", "no org_01JD8V0000000000000000000A", field="org_id", retry_after_ms=1), False),
    ],
)
def test_another_answer_for_what_is_not_there_is_seen(nobodys: Refusal, alike: bool) -> None:
    tally, theirs = Tally(), Refusal("not_found", "no org_01JD8V0000000000000000000A", field="org_id")
    tally.alike("an id", Outcome("NOT_FOUND", theirs), Outcome("NOT_FOUND", nobodys))
    assert (tally.problems == []) is alike


def test_what_only_a_defect_logs_is_seen() -> None:
    fine = {"level": "info", "event": "call_refused", "reason": "not_found"}
    bad = [{"level": "error"}, {"level": "info", "exception": "Traceback"}, {"level": "info", "reason": "internal"}]
    assert defects_in([fine, *bad]) == bad
    assert refusals_in([fine, {"reason": "ok"}, {}]) == {"not_found": 1}
