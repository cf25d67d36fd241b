"""Remembers what control reports about places: who may start runs in an org.

A person's topics describe the runs that they started, in any org. This ends when they lose their place in the org: its
runs belong to the org, and still appear on the org's topic. Every replica receives each change, any number of times and
in any order, and all remember the same: the newest change of a place counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Protocol

import structlog

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.health.failures import note_survived
from services.projector.places.domain import Place
from services.projector.places.limits import PlaceLimits

_log = structlog.get_logger(__name__)


class PlaceStore(Protocol):
    """The newest change of each place. Raises Refusal when the database is away."""

    async def take(self, change: Revocation) -> bool:
        """Remember a change, unless a newer one of the place is known. Returns whether it was new."""
        ...


class PlaceWriter(Protocol):
    """The places in a transaction."""

    async def remember(self, change: Revocation) -> bool:
        """See PlaceStore.take."""
        ...

    async def lost(self, places: Collection[Place]) -> set[Place]:
        """The lost ones among `places`: lost individually, with all places of a person or account, or with the org."""
        ...


class Places:
    """The places, as one replica remembers them."""

    def __init__(self, store: PlaceStore, limits: PlaceLimits | None = None) -> None:
        self._store = store
        self._limits = limits or PlaceLimits()
        self._heard: asyncio.Queue[Revocation] = asyncio.Queue()

    def on_revocation(self, revocation: Revocation) -> None:
        """Handle a revocation, which may change a place."""
        if revocation.place_change is not PlaceChange.NONE:
            self._heard.put_nowait(revocation)

    async def run(self) -> None:
        """Remember the changes that arrive, one after another, until canceled."""
        while True:
            change = await self._heard.get()
            try:
                await self._remember(change)
            except Exception as error:  # noqa: BLE001 - one that breaks must not keep the others from being remembered
                note_survived(_log, "places_not_kept", error, subject=change.subject, org_id=change.org_id)
                self._heard.put_nowait(change)  # the newest change of a place counts, in whatever order they are taken
                await asyncio.sleep(self._limits.retry_s)
            finally:
                self._heard.task_done()

    async def known(self, complete: asyncio.Event) -> None:
        """Wait until the changes from before this process are remembered; `complete` is set when all were heard.

        What was lost while no projector ran would otherwise be told until word of it came. This does not wait for ever,
        because a projector works without control.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.known_within_s):
                await complete.wait()
                await self._heard.join()

    async def _remember(self, change: Revocation) -> None:
        if await self._store.take(change):
            about = {"subject": change.subject, "org_id": change.org_id}
            _log.info("place_changed", change=change.place_change.value, **about)
