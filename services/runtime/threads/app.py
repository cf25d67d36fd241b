"""Requests the end of runs that a newer run of their thread interrupts.

The queue makes the newer run wait for them. Any replica may look, any number of times: a cancel that was requested is
not requested again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.failures import surviving
from oa_platform.health.quarantine import Quarantine
from oa_platform.tasks.word import Word
from oa_runlog.authority.commands import RequestCancel
from services.runtime.log.app.log import Log

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run that must end, and the newer run that waits for it."""

    run_id: str
    org_id: str
    by_run_id: str
    by_user_id: str


class OpenThreads(Protocol):
    """Runs that have not ended, by their threads."""

    async def interrupted(self, limit: int, left_out: Sequence[str]) -> Sequence[Interrupted]:
        """Runs that a newer run interrupts and that nobody has asked to end, without those that are left out."""
        ...


class Threads:
    """Looks after the threads, on one replica."""

    def __init__(
        self, log: Log, store: OpenThreads, *, interval_ms: int, page: int, quarantine: QuarantineSettings
    ) -> None:
        """`interval_ms`: the pause between looks; `page`: how many runs one look ends."""
        self._log = log
        self._store = store
        self._interval_ms = interval_ms
        self._page = page
        self._word = Word()
        self._broken = Quarantine("threads", "run_id", quarantine)

    def look_soon(self) -> None:
        """Look soon, because there is a run that may interrupt others."""
        self._word.give()

    async def run(self) -> None:
        """Run until canceled: look when a run may interrupt others, and at intervals."""
        while True:
            await self._word.within(self._interval_ms / 1000)
            with surviving(_log, "threads_not_seen"):
                await self.look_once()

    async def look_once(self) -> None:
        """Request the end of interrupted runs. Raises Refusal unavailable."""
        found = await self._store.interrupted(self._page, self._broken.ids)
        (await self._broken.attempt_each({one.run_id: partial(self._log.do, _cancel(one)) for one in found})).check()


def _cancel(one: Interrupted) -> RequestCancel:
    return RequestCancel(one.run_id, one.org_id, one.by_user_id, f"interrupted by {one.by_run_id}")
