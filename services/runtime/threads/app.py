"""Asks for the end of runs that a newer one of their thread interrupts.

That the newer one waits for them is the queue's to see to. Any replica may look, any number of times: a cancel that was
asked for is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_platform.process.word import Word
from oa_runlog.commands import RequestCancel
from services.runtime.log.app.log import Log

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run that is to end, and the newer one that waits for it."""

    run_id: str
    org_id: str
    by_run_id: str
    by_user_id: str


class OpenThreads(Protocol):
    """Runs that have not ended, by their threads."""

    async def interrupted(self, limit: int) -> Sequence[Interrupted]:
        """Runs that a newer one interrupts and that nobody has asked to end."""
        ...


class Threads:
    """The threads, as one replica looks after them."""

    def __init__(self, log: Log, store: OpenThreads, *, interval_ms: int, page: int) -> None:
        """`interval_ms`: the pause between looks; `page`: how many runs are ended in one."""
        self._log = log
        self._store = store
        self._interval_ms = interval_ms
        self._page = page
        self._word = Word()

    def look_soon(self) -> None:
        """There is a run that may interrupt others."""
        self._word.give()

    async def run(self) -> None:
        """Until cancelled: when there may be something, and now and then."""
        while True:
            await self._word.within(self._interval_ms / 1000)
            try:
                await self.look_once()
            except Refusal as refusal:
                _log.warning("threads_not_seen", reason=refusal.reason)

    async def look_once(self) -> None:
        """Ask for the end of all that is interrupted. Raises Refusal unavailable."""
        found = await self._store.interrupted(self._page)
        await asyncio.gather(*(self._log.do(_cancel(one)) for one in found))


def _cancel(one: Interrupted) -> RequestCancel:
    return RequestCancel(one.run_id, one.org_id, one.by_user_id, f"interrupted by {one.by_run_id}")
