"""Several questions at a time: all answers in order, or the first failure, or the cancel, whichever comes with it."""

from __future__ import annotations

import asyncio

import pytest

from oa_base.refusal import Refusal
from oa_worker.adapters.codex.asking.questions import together


async def after(turns: int, value: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def test_the_answers_have_the_order_of_the_questions() -> None:
    assert await together(after(3 - number, number) for number in range(3)) == [0, 1, 2]
    assert await together([]) == []


async def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    ended = list[str]()

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")
        return 0

    async def fails() -> int:
        raise Refusal("stale_epoch", "another worker has the run")

    with pytest.raises(Refusal, match="stale_epoch"):
        await together([waits(), fails()])
    assert ended == ["waits"]


async def test_a_failure_does_not_hide_a_cancel_of_the_same_moment() -> None:
    asking: asyncio.Task[list[int]]

    async def fails() -> int:
        asking.cancel()
        raise Refusal("stale_epoch", "another worker has the run")

    asking = asyncio.create_task(together([after(9, 1), fails()]))
    await asyncio.wait([asking])
    assert asking.cancelled(), asking.exception()
