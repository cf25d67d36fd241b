"""What a type checker knows of agents. mypy checks this module like any other: an `ignore` that is not needed fails."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

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
