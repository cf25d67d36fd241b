"""Run summaries: batches of the log change them; calls read them on behalf of a person or service account."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_khala.topics import user_runs
from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.health.quarantine import Quarantine
from oa_platform.telemetry.tracing import span_under
from oa_runlog.state import RunStatus
from oa_runlog.wire import StoredEvent, decode_event
from services.projector.journal.app import JournalWriter, Publication
from services.projector.journal.domain import JournalRow
from services.projector.places.app import PlaceWriter
from services.projector.projection.app import Applied, CheckpointWriter
from services.projector.projection.domain import Checkpoint, LogBatch
from services.projector.set_aside.app import SetAsideWriter, WaitingRun
from services.projector.set_aside.limits import SetAsideLimits
from services.projector.summaries.domain import (
    PERSON_PREFIX,
    PROJECTION,
    VERSION,
    Drift,
    Encoders,
    RunSummary,
    StoredSummary,
    SummaryWrite,
    plan_batch,
)
from services.projector.summaries.limits import PageLimits

APPLY = "projection.apply"
"""The span of a batch of which some are traced, to where its rows are handed on."""


@dataclass(frozen=True, slots=True)
class SummaryQuery:
    """Runs of an org, newest first, below the run id `before` when it is set; the others narrow it."""

    org_id: str
    user_id: str | None
    status: RunStatus | None
    prefix: str
    before: str
    limit: int


class SummaryStore(Protocol):
    """The summaries, for readers. Raises Refusal when the database is away."""

    async def summary(self, run_id: str) -> RunSummary | None:
        """The run's summary."""

    async def page(self, query: SummaryQuery) -> list[RunSummary]:
        """A page of summaries."""


class SummaryWriter(Protocol):
    """The summaries in a batch's transaction."""

    async def read(self, run_ids: Collection[str]) -> dict[str, StoredSummary]:
        """The stored summaries of these runs, as far as there are any."""

    async def write(self, writes: Sequence[SummaryWrite]) -> None:
        """Store summaries. Raises CheckpointMoved when a newer one is stored."""

    async def record(self, drifts: Sequence[Drift]) -> None:
        """Store differences that were found."""

    async def is_empty(self) -> bool:
        """Whether there is no summary."""

    async def owners(self, org_id: str) -> list[str]:
        """Everybody who has started runs in an org."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One batch's transaction: everything that is written is stored, or nothing."""

    checkpoints: CheckpointWriter
    summaries: SummaryWriter
    set_aside: SetAsideWriter
    places: PlaceWriter
    journal: JournalWriter


Transactions = Callable[[], AbstractAsyncContextManager[Transaction]]
"""Begins a transaction; it commits when the block ends, unless it raises. Raises Refusal when the database is away."""


class SummaryProjection:
    """Implements `projection.app.Projection`: read model, topics and checkpoint change together, or not at all."""

    def __init__(
        self,
        transactions: Transactions,
        encoders: Encoders,
        publication: Publication,
        broken: Quarantine,
        limits: SetAsideLimits | None = None,
    ) -> None:
        """`broken` gets the runs that are set aside, so that they are not tried again at once."""
        self._transactions = transactions
        self._encoders = encoders
        self._publication = publication
        self._broken = broken
        self._limits = limits or SetAsideLimits()

    async def apply(self, checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        """See Projection."""
        past = self._publication.past
        with span_under(APPLY, batch.traceparent, {"oa.entries": len(batch.events)}):
            async with self._transactions() as transaction:
                await transaction.checkpoints.advance(checkpoint, batch.last_position)
                held = await transaction.set_aside.held({event.run_id for event in batch.events})
                await transaction.set_aside.add(batch.partition, [one for one in batch.events if one.run_id in held])
                rows, drifts = await self._write(transaction, [one for one in batch.events if one.run_id not in held])
            self._publication.publish(rows, past)
        return Applied(replace(checkpoint, position=batch.last_position), len(rows), drifts)

    async def is_empty(self) -> bool:
        """See Projection. A run that was set aside is something, too."""
        async with self._transactions() as transaction:
            # In this order: a run that catches up meanwhile goes from the one table to the other.
            return await transaction.set_aside.has_room(1) and await transaction.summaries.is_empty()

    async def set_aside(self, checkpoint: Checkpoint, batch: LogBatch, error: Exception) -> Applied:
        """See Projection."""
        async with self._transactions() as transaction:
            await transaction.checkpoints.advance(checkpoint, batch.last_position)
            if not await transaction.set_aside.has_room(self._limits.max_runs):
                raise error
            await transaction.set_aside.add(batch.partition, batch.events)
        self._broken.take(batch.events[0].run_id, error)
        return Applied(replace(checkpoint, position=batch.last_position), 0, 0)

    async def catch_up(self, run: WaitingRun) -> None:
        """Apply the waiting entries of a run that was set aside, and so let it go on. Raises what keeps it from it."""
        while True:
            past = self._publication.past
            async with self._transactions() as transaction:
                await transaction.checkpoints.lock(PROJECTION, VERSION, run.partition)
                entries = await transaction.set_aside.first(run.run_id, self._limits.page_entries)
                if not entries:
                    return
                rows, _ = await self._write(transaction, entries)
                await transaction.set_aside.remove(run.run_id, entries[-1].seq)
            self._publication.publish(rows, past)

    async def _write(self, transaction: Transaction, entries: Sequence[StoredEvent]) -> tuple[list[JournalRow], int]:
        """Store what entries lead to. Returns the rows to publish after the commit, and the number of drifts."""
        events = [decode_event(entry.data) for entry in entries]
        stored = await transaction.summaries.read({event.run_id for event in events})
        plan = plan_batch(stored, events, self._encoders)
        await transaction.summaries.write(plan.writes)
        await transaction.summaries.record(plan.drifts)
        lost = await transaction.places.lost(plan.places)
        return await transaction.journal.append(plan.entries(lost)), len(plan.drifts)


class SummaryPlaces:
    """Implements `places.app.PlaceStore`: whoever gets a place back is told how the runs stand now.

    What happened meanwhile was left out of the person's topic. A follower that went on with it would show these runs as
    they stood when the place was lost, for ever.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def take(self, change: Revocation) -> bool:
        """See PlaceStore."""
        async with self._transactions() as transaction:
            was_lost = await transaction.places.lost({(change.subject, change.org_id)})
            if not await transaction.places.remember(change):
                return False
            if was_lost and change.place_change is PlaceChange.BACK:
                # Snapshots count from here on. A batch that is being applied may still leave something out, also of
                # somebody's first run: it ends before, and later ones know of the change.
                await transaction.checkpoints.lock_all(PROJECTION, VERSION)
                people = [change.subject] if change.subject else await transaction.summaries.owners(change.org_id)
                topics = [user_runs(one) for one in people if one.startswith(PERSON_PREFIX)]
                await transaction.journal.begin_anew(topics)
        return True


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """Summaries, newest first. The next page comes after `next_key`, which is empty on the last page."""

    summaries: Sequence[RunSummary]
    next_key: str


class Listed(StrEnum):
    """The owners whose runs a list holds."""

    OWN = "own"
    ORG = "org"


@dataclass(frozen=True, slots=True)
class ListedRuns:
    """Which runs a list holds. `listed` is None for the caller's default; `prefix` is a prefix of run ids."""

    listed: Listed | None = None
    status: RunStatus | None = None
    prefix: str = ""

    def owner(self, principal: Principal) -> str | None:
        """The owner whose runs `principal` gets; None for all runs of its org."""
        usual = Listed.OWN if principal.kind is PrincipalKind.USER else Listed.ORG
        return principal.subject if (self.listed or usual) is Listed.OWN else None

    def digest(self, principal: Principal) -> bytes:
        """SHA-256 of the list's criteria, so that a page token can't be used with another list or by another caller."""
        owner = self.owner(principal) or ""
        who = (principal.kind.value, principal.subject, principal.org_id)
        parts = ("ListRunSummaries", *who, owner, self.status or "", self.prefix)
        return hashlib.sha256("\n".join(parts).encode()).digest()


class Reads:
    """Reads summaries; owner and org come from the principal. A list holds the principal's own runs, or all runs of the
    org that it acts in.

    Every member who acts in its org may read a single run. The person who started it may not, if they were removed from
    the org or act in another one. A run that a caller may not read looks like one that does not exist.
    """

    def __init__(self, store: SummaryStore, limits: PageLimits | None = None) -> None:
        self._store = store
        self._limits = limits or PageLimits()

    async def summary(self, principal: Principal, run_id: str) -> RunSummary:
        """The run's summary. Raises Refusal(not_found)."""
        summary = await self._store.summary(run_id)
        if summary is None or summary.org_id != principal.org_id:
            raise Refusal(
                "not_found",
                "there is no such run in the read model; a new one takes a moment",
                field="run_id",
            )
        return summary

    async def summaries(self, principal: Principal, which: ListedRuns, page_size: int, after_key: str) -> SummaryPage:
        """The page after `after_key`; a page size of 0 means the default, and one above the maximum the maximum."""
        size = min(page_size or self._limits.default_size, self._limits.max_size)
        # One summary more than requested shows whether there is a next page.
        query = SummaryQuery(principal.org_id, which.owner(principal), which.status, which.prefix, after_key, size + 1)
        found = await self._store.page(query)
        page = found[:size]
        return SummaryPage(page, page[-1].run_id if len(found) > size else "")
