"""Carries out what control tells of places: who has lost one starts nothing more, and a deleted org's runs end.

Every replica hears of each change and does the same, any number of times, in any order: the newest change of a place
counts, and what it means is read from where it is stored. So whoever has died in the middle has left nothing undone,
and a replica that hears all changes once more after its start changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.process.word import Word
from oa_runlog.commands import RequestCancel
from services.runtime.log.app.log import Log
from services.runtime.places.limits import PlaceLimits

ORG_DELETED = "its org was deleted"
"""Why a run ends with its org."""
_log = structlog.get_logger(__name__)
OnLost = Callable[[str, str], Awaitable[None]]
"""Stops what somebody, with the first text, starts in an org, with the second. Either is empty for all."""
OnLook = Callable[[], Awaitable[None]]
"""Starts again what stood still with a place that is back."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run of a deleted org that nobody has asked to end yet."""

    run_id: str
    org_id: str


class PlaceStore(Protocol):
    """The newest change of each place. Every method may raise Refusal unavailable."""

    async def take(self, change: Revocation) -> bool:
        """Remember a change, unless a newer one of the place is known; whether it was news."""
        ...

    async def open_runs(self, limit: int) -> Sequence[OpenRun]:
        """Runs of deleted orgs that nobody has asked to end."""
        ...


class Places:
    """The places, as one replica looks after them. `on_lost` and `on_look` may be called at any time, and again."""

    def __init__(self, store: PlaceStore, log: Log, on_lost: OnLost, on_look: OnLook, limits: PlaceLimits) -> None:
        self._store = store
        self._log = log
        self._on_lost = on_lost
        self._on_look = on_look
        self._limits = limits
        self._heard: deque[Revocation] = deque()
        self._word = Word()

    def on_revocation(self, revocation: Revocation) -> None:
        """Something was revoked; perhaps a place with it."""
        if revocation.place_change:
            self._heard.append(revocation)
            self._word.give()

    async def run(self) -> None:
        """Until cancelled: when there is word, and now and then."""
        while True:
            await self._word.within(self._limits.look_interval_s)
            try:
                await self.look_once()
            except Refusal as refusal:
                _log.warning("places_not_kept", reason=refusal.reason)
                await asyncio.sleep(self._limits.retry_s)
                self._word.give()

    async def look_once(self) -> None:
        """Carry out what was heard, and see to what is left. Raises Refusal unavailable: then the rest is kept."""
        while self._heard:
            await self._take(self._heard[0])
            self._heard.popleft()
        runs = await self._store.open_runs(self._limits.page)
        await asyncio.gather(*(self._log.do(_cancel(one)) for one in runs))
        if runs:
            _log.info("runs_of_deleted_orgs_canceled", runs=len(runs))
        if len(runs) == self._limits.page:
            self._word.give()
        await self._on_look()

    async def _take(self, change: Revocation) -> None:
        is_news = await self._store.take(change)  # first: what is started from now on is stopped by that
        if is_news:
            about = {"subject": change.subject, "org_id": change.org_id}
            _log.info("place_changed", change=change.place_change.value, **about)
        if change.place_change is PlaceChange.LOST:
            await self._on_lost(change.subject, change.org_id)


def _cancel(run: OpenRun) -> RequestCancel:
    return RequestCancel(run.run_id, run.org_id, run.org_id, ORG_DELETED)
