"""What a type checker knows of agents. mypy checks this module like any other: an `ignore` that is not needed fails."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, Optional, assert_type

from pydantic import Field

from oa_client.sdk.runs import RunHandle
from oa_worker.agents import Run, Worker
from oa_worker.agents.tests.rig import Answer, Ask, asked
from oa_worker.tests.fake_runtime import FakeTokens


def test_input_and_output_type_the_function() -> None:
    worker = Worker("t", FakeTokens(asked()))

    @worker.agent("support", input=Ask, output=Answer)
    async def support(run: Run[Ask]) -> Answer:
        assert_type(run.input, Ask)
        assert_type(run.input.question, str)
        return Answer(run.input.question)

    assert_type(support, Callable[[Run[Ask]], Coroutine[Any, Any, Answer]])

    @worker.agent("other-input", input=Ask, output=Answer)  # type: ignore[arg-type]
    async def other_input(run: Run[int]) -> Answer:
        return Answer("")

    @worker.agent("other-output", input=Ask, output=Answer)  # type: ignore[arg-type]
    async def other_output(run: Run[Ask]) -> str:
        return ""

    @worker.agent("wider-input", input=Ask, output=Answer)
    async def wider_input(run: Run[object]) -> Answer:
        return Answer("")


def test_what_is_heard_is_of_the_type_that_is_asked_for() -> None:
    """Without a type it is an object, for which mypy needs no annotation."""

    async def agent(run: Run[Ask]) -> Answer:
        heard = await run.receive()
        assert_type(heard, object)
        assert_type(await run.receive(Ask), Ask)
        async for message in run.inbox():
            assert_type(message, object)
        async for ask in run.inbox(Ask):
            assert_type(ask, Ask)
        saved = await run.restore()
        assert_type(saved, object)
        assert_type(await run.restore(Ask), Ask | None)
        child = await run.start_child("quote", None)
        result = await child.result()
        assert_type(result, object)
        assert_type(await child.result(Answer), Answer)
        return Answer("")

    assert callable(agent)


Either = Ask | Answer
Colour = Literal["red", "blue"]


def test_every_form_of_type_is_one() -> None:
    """Unions, literals and None, also for those who read a result or are asked for a type."""
    worker = Worker("t", FakeTokens(asked()))

    @worker.agent("either", input=Either, output=Answer | None)
    async def either(run: Run[Ask | Answer]) -> Answer | None:
        assert_type(run.input, Ask | Answer)
        assert_type(await run.receive(Either), Ask | Answer)
        assert_type(await run.restore(Optional[Ask]), Ask | None)  # noqa: UP045 - the other way to write it
        child = await run.start_child("quote", None)
        assert_type(await child.result(Answer | None), Answer | None)
        async for colour in run.inbox(Colour):
            assert_type(colour, Literal["red", "blue"])
        return None

    @worker.agent("nothing", input=None, output=Annotated[int, Field(ge=1)])
    async def nothing(run: Run[None]) -> int:
        return 1

    @worker.agent("other-union", input=Either, output=int)  # type: ignore[arg-type]
    async def other_union(run: Run[Ask]) -> int:
        return 1

    async def caller(run: RunHandle) -> None:
        assert_type(await run.output(Answer | None), Answer | None)
        assert_type(await run.output(Colour), Literal["red", "blue"])

    assert list(worker.agents) == ["either", "nothing", "other-union"]
    assert callable(caller)
