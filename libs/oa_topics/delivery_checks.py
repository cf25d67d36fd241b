"""Checks by which gateways see whether a source's commits arrive.

Now and then a source commits a number that nobody has seen before. Once it hears of that commit, in the way in which it
hears of every commit, it hands the number to the streams that asked for it. Where no number arrives any more, no frame
does: be it that the database takes no writes, that its word does not come through, or that a process stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from oa_base.refusal import Refusal
from oa_topics.watcher import Watcher

INTERVAL_S = 1.0
"""Interval between two checks while a stream wants them."""
_log = structlog.get_logger(__name__)


class DeliveryChecks:
    """The checks of one source. `commit` commits the next number, and raises Refusal when it can't. The code that
    hears of the commit calls `heard`. `run` goes on until canceled."""

    def __init__(self, commit: Callable[[], Awaitable[None]], interval_s: float = INTERVAL_S) -> None:
        self._commit = commit
        self._interval_s = interval_s
        self._watchers: dict[Watcher, None] = {}
        self._wanted = asyncio.Event()

    def add(self, watcher: Watcher) -> None:
        """Pass the numbers to `watcher` from now on."""
        self._watchers[watcher] = None
        self._wanted.set()

    def remove(self, watcher: Watcher) -> None:
        """Stop passing them; a watcher that was not added is ignored."""
        self._watchers.pop(watcher, None)
        if not self._watchers:
            self._wanted.clear()

    def heard(self, number: int) -> None:
        """Note that this or another replica committed a number. Never waits."""
        for watcher in self._watchers:
            watcher.check_delivery(number)

    async def run(self) -> None:
        """Commit one number after the other while a stream wants them."""
        failing = False
        while True:
            await self._wanted.wait()
            try:
                await self._commit()
                failing = False
            except Exception as error:  # noqa: BLE001 - gateways notice; a process that ends would deliver nothing
                if not failing:
                    _note(error)
                failing = True
            await asyncio.sleep(self._interval_s)


def _note(error: Exception) -> None:
    if isinstance(error, Refusal):
        _log.warning("delivery_check_failed", reason=error.reason, why=error.message)
    else:
        _log.error("delivery_check_failed", reason=type(error).__name__, exc_info=error)
