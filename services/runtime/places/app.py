"""Carries out changes of places: a principal without one starts nothing more, and a deleted org's runs end.

Control announces the changes. Every replica hears of each change and does the same, any number of times, in any order:
the newest change of a place counts, and its effect is read from the store. So a replica that dies midway leaves nothing
undone, and a replica that hears all changes again after its start changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine, concerns_all
from oa_platform.tasks.word import Word
from oa_runlog.authority.commands import RequestCancel
from services.runtime.log.app.log import Log
from services.runtime.places.limits import PlaceLimits

ORG_DELETED = "its org was deleted"
"""The reason of the cancel of a run whose org was deleted."""
_log = structlog.get_logger(__name__)
OnLost = Callable[[str, str], Awaitable[None]]
"""Stops what a subject starts in an org. Takes the ids of the subject and of the org; an empty id stands for all."""
OnLook = Callable[[], Awaitable[None]]
"""Resumes what was stopped because of a lost place, once the place is back."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run of a deleted org that nobody has asked to end yet."""

    run_id: str
    org_id: str


class PlaceStore(Protocol):
    """The newest change of each place. Every method may raise Refusal unavailable."""

    async def take(self, change: Revocation) -> bool:
        """Store a change, unless a newer change of the place is known; return whether it was new."""
        ...

    async def open_runs(self, limit: int, left_out: Sequence[str]) -> Sequence[OpenRun]:
        """Runs of deleted orgs that nobody has asked to end, without those that are left out."""
        ...


class Places:
    """Looks after places on one replica. `on_lost` and `on_look` may be called at any time, and repeatedly."""

    def __init__(self, store: PlaceStore, log: Log, on_lost: OnLost, on_look: OnLook, limits: PlaceLimits) -> None:
        self._store = store
        self._log = log
        self._on_lost = on_lost
        self._on_look = on_look
        self._limits = limits
        self._heard: deque[Revocation] = deque()
        self._word = Word()
        self._broken = Quarantine("places", "run_id", limits.quarantine)

    def on_revocation(self, revocation: Revocation) -> None:
        """Handle a revocation, which may change a place."""
        if revocation.place_change:
            self._heard.append(revocation)
            self._word.give()

    async def run(self) -> None:
        """Run until canceled: look when there is news, and at intervals."""
        while True:
            await self._word.within(self._limits.look_interval_s)
            try:
                await self.look_once()
            except Exception as error:  # noqa: BLE001 - the next look may succeed, and the next process would fail, too
                note_survived(_log, "places_not_kept", error)
                await asyncio.sleep(self._limits.retry_s)
                self._word.give()

    async def look_once(self) -> None:
        """Carry out the changes that were heard, and what is left. Raises Refusal unavailable, and keeps the rest."""
        for _ in range(len(self._heard)):
            await self._take_first()
        runs = await self._store.open_runs(self._limits.page, self._broken.ids)
        tried = await self._broken.attempt_each({one.run_id: partial(self._log.do, _cancel(one)) for one in runs})
        if tried.results:
            _log.info("runs_of_deleted_orgs_canceled", runs=len(tried.results))
        if len(runs) == self._limits.page and self._broken.has_room:
            self._word.give()
        await self._on_look()
        tried.check()

    async def _take_first(self) -> None:
        """Carry out the first change. One that can't be carried out because of a defect waits behind the others, until
        the next look."""
        change = self._heard[0]
        try:
            await self._take(change)
        except Exception as error:
            if concerns_all(error):
                raise
            note_survived(_log, "place_not_kept", error, subject=change.subject, org_id=change.org_id)
            self._heard.append(change)
        self._heard.popleft()

    async def _take(self, change: Revocation) -> None:
        is_news = await self._store.take(change)  # first, because this stops what is started from now on
        if is_news:
            about = {"subject": change.subject, "org_id": change.org_id}
            _log.info("place_changed", change=change.place_change.value, **about)
        if change.place_change is PlaceChange.LOST:
            await self._on_lost(change.subject, change.org_id)


def _cancel(run: OpenRun) -> RequestCancel:
    return RequestCancel(run.run_id, run.org_id, run.org_id, ORG_DELETED)
