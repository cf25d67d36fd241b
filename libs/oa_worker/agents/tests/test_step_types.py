"""What a step's function states as its result, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, computed_field

from oa_base.refusal import Refusal
from oa_worker.agents import Run
from oa_worker.agents.testing import Played, play, play_with_deaths

if TYPE_CHECKING:
    from nowhere import Context  # type: ignore[import-not-found]


T = TypeVar("T")


class Stream(Generic[T]):
    """Clients of models return one of these, or a whole answer."""


class Price(BaseModel):
    """A result that comes back as a dict if its type is not known."""

    model_config = ConfigDict(extra="forbid")
    net: Decimal

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> Decimal:
        """Follows from the other field."""
        return self.net * 2


PRICE = Price(net=Decimal("1.50"))


async def ask() -> Price:
    return PRICE


def ask_later() -> Awaitable[Price]:
    return ask()


def ask_coroutine() -> Coroutine[Any, Any, Price]:
    return ask()


async def ask_in(context: Context | None = None) -> Price:
    return PRICE


class Tool:
    """A callable object."""

    async def __call__(self, context: Context | None = None) -> Price:
        return PRICE


@pytest.mark.parametrize(
    "function",
    [ask, ask_later, ask_coroutine, ask_in, partial(ask_in, None), Tool()],
    ids=["async", "awaitable", "coroutine", "unknown-argument", "partial", "object"],
)
async def test_a_result_comes_back_as_what_the_function_states(function: Callable[[], Awaitable[Price]]) -> None:
    async def agent(run: Run[int]) -> str:
        got = await run.step("ask", function)
        return f"{type(got).__name__} {got.net} {got.gross}"

    async for played in play_with_deaths(agent, 1):
        assert played.result == "Price 1.50 3.00"


async def picture() -> Base64Bytes:
    return b"\xff\x00"


async def count() -> Annotated[int, Field(ge=0)]:
    return -1


async def test_what_is_annotated_counts() -> None:
    async def agent(run: Run[int]) -> str:
        with pytest.raises(Refusal, match="step 'count' has a result that does not fit"):
            await run.step("count", count)
        return (await run.step("picture", picture)).hex()

    assert (await play(agent, 1)).result == "ff00"


async def played_with(*args: object, **kwargs: object) -> Played[int]:
    def count(*args: object, **kwargs: object) -> int:
        return len(args) + len(kwargs)

    async def agent(run: Run[int]) -> int:
        return await run.step("count", count, *args, **kwargs)

    return await play(agent, 1)


async def test_an_argument_that_can_be_read_once_is_refused_before_it_is_read() -> None:
    numbers = iter([1, 2, 3])
    given: list[tuple[tuple[object, ...], dict[str, object], str]] = [
        ((1, numbers), {}, "args[1]"),
        ((), {"numbers": numbers}, "kwargs.numbers"),
    ]
    for args, kwargs, where in given:
        finish = (await played_with(*args, **kwargs)).finish
        text = f"arguments.{where} is an iterator, which can be read only once; give a list"
        assert (finish.reason, finish.message) == ("invalid_value", text)
    assert list(numbers) == [1, 2, 3]


async def test_a_type_without_a_form_in_json_is_named_whole() -> None:
    def ask_or_stream() -> int | Stream[int]:
        return 1

    async def agent(run: Run[int]) -> object:
        return await run.step("ask", ask_or_stream)

    finish = (await play(agent, 1)).finish
    assert finish.reason == "invalid_value"
    assert "Stream[int]" in finish.message.partition(" has no form in JSON")[0], "and not only that it is a Union"
