"""One thing that can't be handled holds up no other, and is tried again later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.failures import refusal_of
from oa_platform.health.quarantine import Quarantine
from oa_platform.telemetry.metrics import QUARANTINED
from oa_testing.metrics import value_of


class Now:
    """A clock that a test sets."""

    s = 0.0

    def __call__(self) -> float:
        return self.s


async def _failing(error: Exception) -> int:
    raise error


async def _fine() -> str:
    return "done"


async def test_what_fails_by_itself_is_left_out_said_and_counted_and_tried_again_later() -> None:
    now = Now()
    broken = Quarantine("tests", "run_id", QuarantineSettings(retry_s=60), now)
    before, defect = value_of(QUARANTINED.labels("tests")), ValueError("x")
    with capture_logs() as lines:
        await broken.attempt("run_1", lambda: _failing(defect))
        assert await broken.attempt("run_2", _fine) == "done"
    assert lines == [
        {
            "event": "quarantined",
            "log_level": "error",
            "task": "tests",
            "run_id": "run_1",
            "reason": "ValueError",
            "exc_info": defect,
        }
    ]
    assert value_of(QUARANTINED.labels("tests")) == before + 1
    now.s = 59.9
    assert broken.ids == ["run_1"]
    now.s = 60.0
    assert broken.ids == []


@pytest.mark.parametrize(
    "error",
    [
        Refusal("unavailable", "away"),
        Refusal("overloaded", "full"),
        ConnectionError(),
        asyncpg.exceptions.InsufficientPrivilegeError("permission denied for table runs"),
        asyncpg.exceptions.UndefinedTableError('relation "runs" does not exist'),
        asyncpg.exceptions.InvalidColumnReferenceError("there is no unique constraint"),  # its index was dropped
    ],
)
async def test_what_concerns_all_is_raised(error: Exception) -> None:
    broken = Quarantine("tests", "run_id")
    with pytest.raises(type(error)):
        await broken.attempt("run_1", partial(_failing, error))
    assert broken.ids == []


async def test_a_refusal_for_a_defect_concerns_the_one_and_is_an_error_with_its_traceback() -> None:
    broken, defect = Quarantine("tests", "run_id"), Refusal("internal", "a defect of ours")
    with capture_logs() as lines:
        await broken.attempt("run_1", lambda: _failing(defect))
    assert broken.ids == ["run_1"]
    assert [(line["log_level"], line["exc_info"]) for line in lines] == [("error", defect)]


async def test_a_page_that_the_database_can_not_read_concerns_the_one() -> None:
    broken, damage = Quarantine("tests", "run_id"), asyncpg.exceptions.DataCorruptedError("invalid page in block 3")
    refusal = refusal_of(damage)
    assert refusal is not None
    refusal.__cause__ = damage
    await broken.attempt("run_1", lambda: _failing(damage))
    await broken.attempt("run_2", lambda: _failing(refusal))
    assert broken.ids == ["run_1", "run_2"]


async def test_what_concerns_all_keeps_none_of_the_others_from_being_tried() -> None:
    broken, full = Quarantine("tests", "run_id"), Refusal("overloaded", "full")

    async def slow() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    works: dict[str, Callable[[], Awaitable[str | int]]] = {
        "run_1": partial(_failing, full),
        "run_2": partial(_failing, ValueError("x")),
        "run_3": slow,
    }
    tried = await broken.attempt_each(works)
    assert (tried.results, broken.ids) == ({"run_3": "done"}, ["run_2"])
    with pytest.raises(Refusal) as caught:
        tried.check()
    assert caught.value is full
    (await broken.attempt_each({"run_1": _fine})).check()


def test_there_is_room_until_as_many_are_left_out_as_may_be() -> None:
    now = Now()
    broken = Quarantine("tests", "run_id", QuarantineSettings(retry_s=60, max_things=2), now)
    rooms = [broken.has_room]
    for number in range(2):
        broken.hold(f"run_{number}")
        rooms.append(broken.has_room)
    now.s = 60.0
    assert [*rooms, broken.has_room] == [True, True, False, True]


def test_rows_that_can_not_be_decoded_are_left_out() -> None:
    broken = Quarantine("tests", "run_id")
    rows = [{"run_id": "run_1", "n": "1"}, {"run_id": "run_2", "n": "two"}, {"run_id": "run_3", "n": "3"}]
    assert broken.decoded(rows, lambda row: int(row["n"])) == [1, 3]
    assert broken.ids == ["run_2"]


def test_no_more_are_left_out_than_the_limit_allows() -> None:
    now = Now()
    broken = Quarantine("tests", "run_id", QuarantineSettings(retry_s=60, max_things=2), now)
    for number in range(3):
        broken.hold(f"run_{number}")
        now.s += 1
    assert broken.ids == ["run_1", "run_2"]
    broken.hold("run_1")  # failed once more: it is now the one that is tried last
    broken.hold("run_3")
    assert broken.ids == ["run_1", "run_3"]


async def test_what_fails_among_many_is_found_and_left_out_and_the_rest_is_done() -> None:
    broken, done = Quarantine("tests", "run_id"), set[str]()

    async def work(ids: Sequence[str]) -> int:
        if {"run_2", "run_5"} & set(ids):
            raise ValueError("x")
        done.update(ids)
        return len(ids)

    assert await broken.together([f"run_{number}" for number in range(7)], work) == 5
    assert done == {"run_0", "run_1", "run_3", "run_4", "run_6"}
    assert broken.ids == ["run_2", "run_5"]


async def test_a_defect_that_meets_all_of_many_is_raised_and_leaves_nothing_out() -> None:
    broken = Quarantine("tests", "run_id")
    with pytest.raises(ValueError, match="x"):
        await broken.together(["run_1", "run_2"], lambda _: _failing(ValueError("x")))
    with pytest.raises(Refusal):
        await broken.together(["run_1", "run_2"], lambda _: _failing(Refusal("unavailable", "away")))
    assert broken.ids == []
