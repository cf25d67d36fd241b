"""Writes one batch over one connection: decides its commands, and stores what they change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import CreateRun
from oa_runlog.authority.limits import RunLimits
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log import metrics
from services.runtime.log.app.pending import PendingCommand
from services.runtime.log.app.ports import LogSession
from services.runtime.log.domain.batch import (
    NO_LENDERS,
    NO_SHARES,
    Answer,
    Batch,
    Changes,
    Decided,
    Snapshot,
    wanted_by,
)
from services.runtime.log.domain.cache import LogCache
from services.runtime.log.domain.shares import Share, is_of_families, parents_of, shares_to_grow

_log = structlog.get_logger(__name__)
_batches = cache(metrics.BATCHES.labels)  # finding a metric by its label costs more than counting


class Seal(Protocol):
    """Signs the receipt of a run that has ended."""

    def __call__(self, state: RunState, log_epoch: str) -> SignedReceipt:
        """The receipt, which states the log's epoch."""
        ...


class BatchWriter:
    """Decides batches from the cache if that is enough, and otherwise from the database."""

    def __init__(self, run_limits: RunLimits, seal: Seal, cache: LogCache) -> None:
        self._run_limits = run_limits
        self._seal = seal
        self._cache = cache

    async def write(self, session: LogSession, commands: Sequence[PendingCommand]) -> Decided:
        """Commit the commands and return their answers. If this raises, they may or may not have been stored."""
        started = time.perf_counter()
        partitions = {one.command.run_id: one.partition for one in commands}
        decided = await self._from_cache(session, commands, partitions)
        if decided is None:
            decided = await self._from_database(session, commands, partitions)
        metrics.BATCH_SECONDS.observe(time.perf_counter() - started)
        metrics.BATCH_COMMANDS.observe(len(commands))
        return decided

    async def _from_cache(
        self, session: LogSession, commands: Sequence[PendingCommand], partitions: Mapping[str, int]
    ) -> Decided | None:
        """Decide from the cache and store the batch if the cache is current, in one round trip. None if that fails."""
        created = {one.command.run_id for one in commands if isinstance(one.command, CreateRun)}
        known = {run_id: number for run_id, number in partitions.items() if run_id not in created}
        hit = self._cache.look_up(known, set(partitions.values()), time.monotonic_ns())
        if hit is None or self._shares(hit.snapshot, commands):
            return None
        decided = self._decide(hit.heads, hit.snapshot, commands)
        if not decided.is_storable_unread:
            return None
        self._seal_finished(decided.changes, hit.snapshot)
        if not await session.store(hit.heads, hit.snapshot.runs.values(), decided.changes, hit.snapshot.now_ns):
            _batches("overtaken").inc()
            self._cache.overtaken(hit.heads)
            return None
        _batches("cached").inc()
        self._cache.stored(hit.heads)
        self._learn(hit.heads, decided, partitions)
        return decided

    async def _from_database(
        self, session: LogSession, commands: Sequence[PendingCommand], partitions: Mapping[str, int]
    ) -> Decided:
        """Lock the partitions, read, decide, store, and cache what was read."""
        async with session.transaction(set(partitions.values())) as transaction:
            snapshot = await transaction.read(wanted_by([one.command for one in commands]))
            self._cache.clock(snapshot.now_ns, time.monotonic_ns(), snapshot.log_epoch)
            shares = self._shares(snapshot, commands)
            counted = await transaction.counted(shares) if shares else NO_SHARES
            parents = parents_of([one.command for one in commands], snapshot.runs) if is_of_families(shares) else None
            lenders = await transaction.lenders(parents) if parents else NO_LENDERS
            decided = self._decide(transaction.heads, snapshot, commands, counted, lenders)
            if decided.changes.records:
                self._seal_finished(decided.changes, snapshot)
                await transaction.store(decided.changes, snapshot.now_ns)
        _batches("read").inc()
        self._learn(transaction.heads, decided, partitions)
        return decided

    def _shares(self, snapshot: Snapshot, commands: Sequence[PendingCommand]) -> Sequence[Share]:
        """Return the shares that grow with the commands. They have to be locked and counted first."""
        return shares_to_grow([one.command for one in commands], snapshot.runs, self._run_limits)

    def _seal_finished(self, changes: Changes, snapshot: Snapshot) -> None:
        """Sign the receipts of the runs that ended."""
        if changes.finished:
            changes.log_epoch = snapshot.log_epoch
            changes.receipts = [self._seal(changes.runs[run_id], snapshot.log_epoch) for run_id in changes.finished]

    def _decide(
        self,
        heads: Mapping[int, Head],
        snapshot: Snapshot,
        commands: Sequence[PendingCommand],
        counted: Mapping[Share, int] = NO_SHARES,
        lenders: Mapping[str, str] = NO_LENDERS,
    ) -> Decided:
        batch = Batch(heads, snapshot, self._run_limits, counted, lenders)
        return Decided(batch, [_apply(batch, one) for one in commands])

    def _learn(self, heads: Mapping[int, Head], decided: Decided, partitions: Mapping[str, int]) -> None:
        runs = decided.batch.runs
        self._cache.learn(heads, decided.batch.heads, [(run, partitions[run_id]) for run_id, run in runs.items()])


def _apply(batch: Batch, one: PendingCommand) -> Answer:
    answer: Answer
    try:
        answer = batch.apply(one.command, one.partition, one.place)
    except Exception:  # noqa: BLE001 - a defect in one command must not take its neighbors with it
        _log.exception("command_failed", command=type(one.command).__name__, run_id=one.command.run_id)
        answer = Refusal("internal", "a defect of ours, which was logged; tell the operators when it was")
    if one.place is not None:
        batch.answered(one.place, answer)
    return answer
