"""Answers questions in groups, so that calls which come at the same time share a round trip to the database.

    self._standings = Together(self._read_standings)
    found = await self._standings.ask(session_id)

The first question is put at once. Those that come while it is being answered wait, and are put together then, or once
the answer is late: one connection that stands still holds nobody else up. So each answer is newer than its question, a
call that comes alone waits for nobody, and the more calls come, the fewer round trips each of them costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from oa_base.refusal import Refusal

Q = TypeVar("Q")
A = TypeVar("A")
MAX_TOGETHER = 200
"""Maximum number of questions that are put at a time."""
LATE_S = 0.05
"""The time after which an answer no longer holds up the next questions."""


class Together(Generic[Q, A]):
    """See the module. `answer` answers a group, in the order of its questions; what it raises, all of them raise."""

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], late_s: float = LATE_S) -> None:
        self._answer = answer
        self._late_s = late_s
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._putting: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer. A caller that gives up leaves the others of its group alone."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._putting is None:
            # A group does not belong to the call that happens to begin it, neither in traces nor in logs.
            self._putting = asyncio.create_task(self._put_all(), context=Context())
        return await future

    async def _put_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
                if group := [one for one in group if not one[1].done()]:
                    answering = asyncio.create_task(self._answer_group(group))
                    self._under_way.add(answering)
                    answering.add_done_callback(self._under_way.discard)
                    await asyncio.wait([answering], timeout=self._late_s)
        finally:
            self._putting = None

    async def _answer_group(self, group: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in group])
            answered = list(zip(group, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - raised by those who asked
            _fail(group, error)
            return
        except BaseException:
            _fail(group, Refusal("unavailable", "the answer was given up; try again"))
            raise
        for (_, future), answer in answered:
            if not future.done():  # its caller has given up
                future.set_result(answer)


def _fail(group: Sequence[tuple[Q, asyncio.Future[A]]], error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
