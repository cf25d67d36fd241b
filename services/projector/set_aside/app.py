"""Tries runs again that were set aside.

When a defect keeps an entry from being applied, or a later release has written an event that can't be read here, the
run is *set aside*: the entry, and all later entries of the run,
are stored in a table, in the transaction that moves the checkpoint past them. So the partition's other runs go on, and
nothing is skipped: as long as entries of a run wait, its later entries are put behind them. A run is tried again after
a pause, and is no longer set aside once all its entries have been applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from oa_platform.health.failures import surviving
from oa_platform.health.quarantine import Quarantine
from oa_runlog.wire import StoredEvent
from services.projector.set_aside.limits import SetAsideLimits

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run of which entries wait, and its partition of the log."""

    run_id: str
    partition: int


class SetAsideStore(Protocol):
    """The waiting entries, for tries. Raises Refusal when the database is away."""

    async def runs(self, without: Collection[str], limit: int) -> list[WaitingRun]:
        """At most `limit` runs of which entries wait, without some."""


class SetAsideWriter(Protocol):
    """The waiting entries in a transaction that has locked their partition's checkpoint."""

    async def held(self, run_ids: Collection[str]) -> set[str]:
        """The runs among these of which entries wait."""

    async def has_room(self, max_runs: int) -> bool:
        """Whether entries of fewer than `max_runs` runs wait."""

    async def add(self, partition: int, entries: Sequence[StoredEvent]) -> None:
        """Put entries behind those of their runs."""

    async def first(self, run_id: str, limit: int) -> list[StoredEvent]:
        """At most `limit` entries of the run, the oldest first."""

    async def remove(self, run_id: str, up_to_seq: int) -> None:
        """Remove the entries of the run up to a seq, because they have been applied."""


CatchUp = Callable[[WaitingRun], Awaitable[None]]
"""Applies all waiting entries of a run."""


class Retries:
    """Tries runs again that were set aside. Every replica does, at any time: one of them applies an entry."""

    def __init__(self, store: SetAsideStore, catch_up: CatchUp, broken: Quarantine, limits: SetAsideLimits) -> None:
        """`broken` has the runs that this replica has tried a short time ago."""
        self._store = store
        self._catch_up = catch_up
        self._broken = broken
        self._limits = limits

    async def run(self) -> None:
        """Look periodically, until canceled."""
        while True:
            with surviving(_log, "set_aside_not_read"):
                await self.look()
            await asyncio.sleep(self._limits.look_interval_s)

    async def look(self) -> None:
        """Try each run that may be tried now. Raises Refusal when the database is away."""
        for run in await self._store.runs(self._broken.ids, self._limits.tried_runs):
            if await self._broken.attempt(run.run_id, partial(self._try, run)):
                _log.info("run_caught_up", run_id=run.run_id)

    async def _try(self, run: WaitingRun) -> bool:
        await self._catch_up(run)
        return True
