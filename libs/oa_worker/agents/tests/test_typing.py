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
