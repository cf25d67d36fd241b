"""Remembers what control tells of places: who may start runs in an org.

A person's topics tell of the runs that they started, in whatever org. With the place in an org that ends: its runs are
the org's, and go on to be told of on the org's topic. Every replica hears of each change and remembers the same, any
number of times, in any order: the newest change of a place counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_platform.auth.revocations import PlaceChange, Revocation
from services.projector.places.domain import Place
from services.projector.places.limits import PlaceLimits

_log = structlog.get_logger(__name__)


class PlaceStore(Protocol):
    """The newest change of each place. Raises Refusal when the database is away."""

    async def take(self, change: Revocation) -> bool:
        """Remember a change, unless a newer one of the place is known; whether it was news."""
        ...


class PlaceReader(Protocol):
    """The places in a batch's transaction."""

    async def lost(self, places: Collection[Place]) -> set[Place]:
        """Those of the places that were lost: by themselves, with all of somebody's, or with the org."""
        ...


class Places:
    """The places, as one replica remembers them."""

    def __init__(self, store: PlaceStore, limits: PlaceLimits | None = None) -> None:
        self._store = store
        self._limits = limits or PlaceLimits()
        self._heard: asyncio.Queue[Revocation] = asyncio.Queue()

    def on_revocation(self, revocation: Revocation) -> None:
        """Something was revoked; perhaps a place with it."""
        if revocation.place_change is not PlaceChange.NONE:
            self._heard.put_nowait(revocation)

    async def run(self) -> None:
        """Remember what is heard, one after another, until cancelled."""
        while True:
            await self._remember(await self._heard.get())

    async def _remember(self, change: Revocation) -> None:
        """However long the database is away."""
        while True:
            try:
                is_news = await self._store.take(change)
                break
            except Refusal as refusal:
                _log.warning("places_not_kept", reason=refusal.reason)
                await asyncio.sleep(self._limits.retry_s)
        if is_news:
            about = {"subject": change.subject, "org_id": change.org_id}
            _log.info("place_changed", change=change.place_change.value, **about)
