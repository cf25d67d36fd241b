"""Questions that come at the same time are answered together, and nobody pays for another's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from oa_base.refusal import Refusal
from oa_platform.tasks.together import MAX_TOGETHER, Together
from oa_testing.waiting import PATIENCE_S, eventually


class Answerer:
    """Doubles numbers, once it is allowed to."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.allowed = asyncio.Semaphore(0)
        self.failure: Exception | None = None

    async def answer(self, questions: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(questions))
        await self.allowed.acquire()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return [2 * question for question in questions]


async def asked(together: Together[int, int], *questions: int) -> list[asyncio.Task[int]]:
    """These are asked, in this order, and have had time to be put."""
    tasks = [asyncio.create_task(together.ask(question)) for question in questions]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_a_question_is_put_at_once_and_those_that_come_meanwhile_together() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, late_s=PATIENCE_S)
    first = await asked(together, 1)
    assert answerer.groups == [[1]]
    later = await asked(together, 2, 3, 2)
    assert answerer.groups == [[1]], "an answer is newer than its question, so they wait for the next one"
    answerer.allowed.release()
    assert await first[0] == 2
    answerer.allowed.release()
    assert await asyncio.gather(*later) == [4, 6, 4]
    assert answerer.groups == [[1], [2, 3, 2]]
    answerer.allowed.release()
    assert await together.ask(5) == 10, "and from then on, again"


async def test_a_failure_is_raised_by_its_group_alone() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, late_s=PATIENCE_S)
    first = await asked(together, 1)
    answerer.failure = Refusal("unavailable", "the database is away; try again")
    later = await asked(together, 2)
    answerer.allowed.release()
    with pytest.raises(Refusal):
        await first[0]
    answerer.allowed.release()
    assert await later[0] == 4


async def test_a_caller_that_gives_up_takes_nobody_along() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, late_s=PATIENCE_S)
    first, second, third = [*await asked(together, 1), *await asked(together, 2, 3)]
    first.cancel()
    second.cancel()
    answerer.allowed.release()
    answerer.allowed.release()
    assert await third == 6
    assert answerer.groups == [[1], [3]]
    assert first.cancelled()
    assert second.cancelled()


async def test_an_answer_that_is_late_holds_nobody_up() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, late_s=0)
    late = await asked(together, 1)
    later = await asked(together, 2)
    await eventually(lambda: answerer.groups == [[1], [2]])
    for _ in range(2):
        answerer.allowed.release()
    assert await asyncio.gather(*late, *later) == [2, 4]


async def test_a_group_has_its_limit() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, late_s=PATIENCE_S)
    tasks = await asked(together, *range(MAX_TOGETHER + 2))
    for _ in range(3):
        answerer.allowed.release()
    assert await asyncio.gather(*tasks) == [2 * number for number in range(MAX_TOGETHER + 2)]
    assert [len(group) for group in answerer.groups] == [MAX_TOGETHER, 2]


async def test_however_an_answer_ends_nobody_waits_for_ever() -> None:
    async def too_few(questions: Sequence[int]) -> Sequence[int]:
        return questions[1:]

    async def canceled(questions: Sequence[int]) -> Sequence[int]:
        helper = asyncio.create_task(asyncio.sleep(3600))
        helper.cancel()
        await helper
        return questions

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ValueError, match="shorter"):
            await Together(too_few).ask(1)
        with pytest.raises(Refusal) as caught:
            await Together(canceled).ask(1)
    assert caught.value.reason == "unavailable"
