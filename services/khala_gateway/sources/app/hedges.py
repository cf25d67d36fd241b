"""Repeats slow reads of history at another replica."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_platform.tasks.ending import cancel_and_wait

T = TypeVar("T")


class Hedges:
    """Makes a call a second time when its answer takes long, and returns the first answer.

    Calls go to the replicas of a source in turn, so the second one reaches another replica, where there is one. The
    number of second calls under way is limited, so that a source that is slow as a whole does not get all its work
    twice.
    """

    def __init__(self, patience_ms: int, max_running: int) -> None:
        """`patience_ms`: how long the first call may take before the second is made; 0 for no second call."""
        self._patience_s = patience_ms / 1000
        self._free = max_running

    async def first(self, call: Callable[[], Awaitable[T]], asked_again: Callable[[], None]) -> T:
        """The first answer or refusal of the calls. A refusal that may be retried counts only if all calls end so.

        `asked_again` is called when a second call is made.
        """
        calls = [asyncio.ensure_future(call())]
        try:
            await asyncio.wait(calls, timeout=self._patience_s or None)
            if not calls[0].done() and self._free:
                self._free -= 1
                asked_again()
                calls.append(asyncio.ensure_future(call()))
            while (first := _answer_of(calls)) is None:
                await asyncio.wait([one for one in calls if not one.done()], return_when=asyncio.FIRST_COMPLETED)
            return first.result()
        finally:
            self._free += len(calls) - 1
            await cancel_and_wait(*calls)


def _answer_of(calls: Sequence[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """The first call that has answered, or the last call if all have failed."""
    ended = [one for one in calls if one.done()]
    said = next((one for one in ended if not _failed(one)), None)
    return said or (calls[-1] if len(ended) == len(calls) else None)


def _failed(call: asyncio.Future[T]) -> bool:
    error = None if call.cancelled() else call.exception()
    return isinstance(error, Refusal) and error.info.action is ClientAction.RETRY
