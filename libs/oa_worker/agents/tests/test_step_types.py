"""What a step's function states as its result, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, SecretStr, computed_field

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


@dataclass
class Holder:
    """Holds anything."""

    held: object


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
        (({"all": [0, numbers]},), {}, "args[0].all[1]"),
        ((Holder(numbers),), {}, "args[0].held"),
    ]
    for args, kwargs, where in given:
        finish = (await played_with(*args, **kwargs)).finish
        text = f"arguments.{where} is an iterator, which can be read only once; give a list"
        assert (finish.reason, finish.message) == ("invalid_value", text)
    assert list(numbers) == [1, 2, 3]


class Renamed(BaseModel):
    """Would come back without what it holds, because the field is written under another name than it is read."""

    count: int = Field(0, validation_alias="n", serialization_alias="number")


class ByName(Renamed):
    """Is read by the names of its fields, too."""

    model_config = ConfigDict(validate_by_name=True)
    count: int = Field(0, validation_alias="n")


class Login(BaseModel):
    """Would come back with stars."""

    password: SecretStr


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (
            Renamed.model_validate({"n": 3}),
            "Renamed has a field, count, that is written under another name than it is read",
        ),
        (Login(password=SecretStr("a password")), "Login has a secret in password, and a log is no place for it"),
    ],
)
async def test_a_type_that_would_not_come_back_is_refused_before_the_step_is_done(value: BaseModel, fault: str) -> None:
    done: list[str] = []

    def give() -> BaseModel:
        done.append("once")
        return value

    give.__annotations__ = {"return": type(value)}

    async def agent(run: Run[int]) -> None:
        with pytest.raises(Refusal, match=fault):
            await run.restore(type(value))
        await run.step("give", give)

    finish = (await play(agent, 1)).finish
    assert finish.reason == "invalid_value"
    assert finish.message.startswith(fault)
    assert not done


async def test_a_model_that_is_read_by_name_comes_back() -> None:
    def give() -> ByName:
        return ByName(count=3)

    async def agent(run: Run[int]) -> int:
        return (await run.step("give", give)).count

    async for played in play_with_deaths(agent, 1):
        assert played.result == 3


async def test_no_secret_is_stored_as_stars() -> None:
    async def agent(run: Run[int]) -> list[str]:
        refused = []
        for do in (
            lambda: run.save({"login": Login(password=SecretStr("a password"))}),
            lambda: run.start_child("other", [SecretStr("a password")]),
            lambda: run.step("secret", lambda: SecretStr("a password")),
        ):
            with pytest.raises(Refusal, match="a secret") as refusal:
                await do()
            refused.append(refusal.value.message.partition(", ")[0])
        return refused

    assert (await play(agent, 1)).result == [
        "value.login.password is a secret",
        "input[0] is a secret",
        "step 'secret' has a result that does not fit: $ is a secret",
    ]


async def test_a_result_that_can_not_be_read_back_is_not_stored() -> None:
    def price() -> Decimal:
        return Decimal("NaN")

    async def agent(run: Run[int]) -> str:
        with pytest.raises(Refusal, match="step 'price' has a result that does not fit"):
            await run.step("price", price)
        return "gone on"

    played = await play(agent, 1)
    assert (played.result, played.steps) == ("gone on", [])


async def test_a_stored_result_of_another_version_is_told_from_a_wrong_one() -> None:
    def old() -> int:
        return 1

    def new() -> str:
        return "one"

    calls: list[Callable[[], object]] = [old, new]

    async def agent(run: Run[int]) -> str:
        return str(await run.step("quote", calls[run.attempt - 1]))

    finish = (await play(agent, 1, death=1)).finish
    assert finish.reason == "step_mismatch"
    assert finish.message.startswith("step 1, 'quote', has a stored result that does not fit its type now ($: ")


async def test_a_type_without_a_form_in_json_is_named_whole() -> None:
    def ask_or_stream() -> int | Stream[int]:
        return 1

    async def agent(run: Run[int]) -> object:
        return await run.step("ask", ask_or_stream)

    finish = (await play(agent, 1)).finish
    assert finish.reason == "invalid_value"
    assert "Stream[int]" in finish.message.partition(" has no form in JSON")[0], "and not only that it is a Union"
