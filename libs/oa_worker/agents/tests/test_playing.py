"""The test kit plays a run as a worker executes it: with the types that are declared, and the reasons that it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from oa_base.refusal import Refusal
from oa_worker.agents import ChildFailed, Run
from oa_worker.agents.failures import AgentFailure
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.rig import Ask, finish_of

T = TypeVar("T")
NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


class Typed(TypedDict):
    """A dict to those who look at the value."""

    when: datetime


@dataclass
class Box(Generic[T]):
    """A class whose value does not tell the type within."""

    inside: T


async def typed(run: Run[Typed]) -> int:
    return run.input["when"].year


async def several(run: Run[list[Ask]]) -> int:
    return len(run.input[0].question)


async def named(run: Run[dict[str, datetime]]) -> int:
    return run.input["when"].year


async def pair(run: Run[tuple[Ask, int]]) -> int:
    return len(run.input[0].question) + run.input[1]


async def boxed(run: Run[Box[Ask]]) -> int:
    return len(run.input.inside.question)


async def optional(run: Run[int | None]) -> int:
    return run.input or 0


async def undeclared(run):  # type: ignore[no-untyped-def]
    return len(run.input.question)


async def open_to_any(run: Run[Any]) -> int:
    return len(run.input.question)


async def open_to_all(run: Run[T]) -> str:
    return type(run.input).__name__


@pytest.mark.parametrize(
    ("agent", "value", "result"),
    [
        (typed, {"when": NEW_YEAR}, 2025),
        (several, [Ask("why")], 3),
        (named, {"when": NEW_YEAR}, 2025),
        (pair, (Ask("why"), 4), 7),
        (boxed, Box(Ask("why")), 3),
        (optional, None, 0),
        (optional, 5, 5),
        (undeclared, Ask("why"), 3),
        (open_to_any, Ask("why"), 3),
        (open_to_all, Ask("why"), "Ask"),
    ],
)
async def test_an_input_is_of_the_declared_type_and_without_one_of_that_of_the_value(
    agent: Callable[[Run[Any]], Any], value: object, result: object
) -> None:
    assert (await play(agent, value)).result == result
    async for played in play_with_deaths(agent, value):
        assert played.result == result


async def test_an_input_of_another_type_fails_as_on_a_worker() -> None:
    given: Any = "notint"
    played = (await play(optional, given)).finish
    assert played == await finish_of(optional, '"notint"', input=int | None, output=int)
    assert played.reason == "invalid_input"


async def test_types_that_cannot_be_read_are_given() -> None:
    @dataclass
    class Local:
        question: str

    async def local(run: Run[Local]) -> Local:
        return Local(run.input.question)

    with pytest.raises(TypeError, match="give them as `input` and `output`"):
        await play(local, Local("why"))
    assert (await play(local, Local("why"), input=Local, output=Local)).result == Local("why")


@pytest.mark.parametrize(
    "raised",
    [
        Refusal("invalid_value", "boo; say something else"),
        Refusal("invalid_value", "it must be short", field="name"),
        AgentFailure("timeout", "it took too long"),
        ExceptionGroup("in a task group", [Refusal("limit_reached", "no more; wait")]),
        ExceptionGroup("several", [ValueError("a"), Refusal("limit_reached", "no more; wait")]),
        SystemExit(3),
        ValueError("no"),
    ],
)
async def test_a_child_fails_with_the_reason_that_its_worker_gives(raised: BaseException) -> None:
    async def fails(run: Run[Ask]) -> str:
        raise raised

    async def parent(run: Run[Ask]) -> list[str]:
        child = await run.start_child("k", None)
        try:
            await child.result()
        except ChildFailed as failed:
            return [failed.reason, failed.message]
        return []

    finish = await finish_of(fails, output=str)
    played = await play(parent, Ask("x"), children={"k": raised})
    assert played.result == [finish.reason, finish.message]


@pytest.mark.parametrize(("chars", "reason"), [(192 * 1024 - 2, ""), (192 * 1024 - 1, "payload_too_large")])
async def test_a_result_that_no_log_takes_fails_the_run(chars: int, reason: str) -> None:
    """As with a worker: the authority refuses it. The quotes of the JSON text count."""

    async def wordy(run: Run[int]) -> str:
        return "x" * run.input

    played = await play(wordy, chars)
    assert played.finish.reason == reason


class Renamed(BaseModel):
    """Is written under another name than it is read."""

    count: int = Field(validation_alias="n", serialization_alias="number")


async def test_a_result_that_no_caller_can_read_is_no_result() -> None:
    async def agent(run: Run[int]) -> Renamed:
        return Renamed.model_validate({"n": run.input})

    played = await play(agent, 3)
    assert played.finish.result_json == '{"number":3}'
    with pytest.raises(AssertionError, match=r"can't be read as the agent's type: \$\.n: Field required"):
        _ = played.result
