"""Replicas that are wrong on purpose: what the checker has to find."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from oa_runlog.authority.commands import Append, CancelDeadline, Command
from oa_runlog.authority.decide import decide
from oa_runlog.state import RunState, RunStatus
from services.runtime.authority.domain import Head
from services.runtime.log.app.ports import LogSession, LogStore, LogTransaction
from services.runtime.log.domain import batch
from services.runtime.log.domain.batch import Changes, Snapshot, Wanted
from services.runtime.log.domain.records import RunRecord
from services.runtime.log.domain.shares import Share
from services.runtime.log.store import sql
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.domain.notices import AppendAnswer, Notice
from tests.order.harness import Calls

from .grpc_replicas import CANCEL_DEADLINE_MS
from .replicas import ReaderDefect, RunReader, StoreDefect, no_reader_defect, no_store_defect

_READS_BEFORE_COMMIT = 3
_LATEST_COMMIT_S = 1.0
"""When everybody waits for the commit, nobody reads before it."""
_ROLLBACK_SHARE = 0.1
_READS_FROM_MEMORY = 4


class _ReadsAlways:
    """A session that stores nothing from memory: every batch goes through a transaction, where the defect is."""

    is_open = True

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        return False


class AcknowledgesEarly(_ReadsAlways):
    """Answers first and commits after a few reads. Nothing gets lost, and yet a read misses what was acknowledged."""

    def __init__(self, store: LogStore, reads: Calls) -> None:
        self._store = store
        self._reads = reads
        self._late: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[LogSession]:
        yield self

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[LogTransaction]:
        stack = AsyncExitStack()
        try:
            session = await stack.enter_async_context(self._store.session())
            yield await stack.enter_async_context(session.transaction(partitions))
        except BaseException:
            await stack.__aexit__(*sys.exc_info())
            raise
        task = asyncio.create_task(self._commit(stack))
        self._late.add(task)
        task.add_done_callback(self._done)

    async def _commit(self, stack: AsyncExitStack) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LATEST_COMMIT_S):
                await self._reads.passed(_READS_BEFORE_COMMIT)
        await stack.aclose()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # a commit that failed, and that nobody hears of: that is the defect


class _CountsReads:
    """Notes what it has answered."""

    def __init__(self, reader: RunReader, reads: Calls) -> None:
        self._reader = reader
        self._reads = reads

    async def run(self, run_id: str) -> RunRecord | None:
        found = await self._reader.run(run_id)
        self._reads.note()
        return found


class _RolledBack(Exception):
    pass


class SwallowsRollbacks:
    """Some transactions are rolled back, and answered as if they were not."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._chance = random.Random(1)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[LogSession]:
        async with self._store.session() as session:
            yield _SwallowingSession(session, self._chance)


@dataclass
class _SwallowingSession(_ReadsAlways):
    _session: LogSession
    _chance: random.Random

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[LogTransaction]:
        try:
            async with self._session.transaction(partitions) as transaction:
                yield transaction
                if self._chance.random() < _ROLLBACK_SHARE:
                    raise _RolledBack
        except _RolledBack:
            pass


ChangesState = Callable[[RunState, Command], RunState]
Surroundings = Callable[[], AbstractContextManager[object]]
ChangesSnapshot = Callable[[Snapshot], Snapshot]


@dataclass
class ReadsThrough:
    """Decides on something else than what is stored."""

    _store: LogStore
    _change: ChangesSnapshot

    @asynccontextmanager
    async def session(self) -> AsyncIterator[LogSession]:
        async with self._store.session() as session:
            yield _SessionReadThrough(session, self._change)


@dataclass
class _SessionReadThrough(_ReadsAlways):
    _session: LogSession
    _change: ChangesSnapshot

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[LogTransaction]:
        async with self._session.transaction(partitions) as transaction:
            yield _TransactionReadThrough(transaction, self._change)


class _TransactionReadThrough:
    def __init__(self, transaction: LogTransaction, change: ChangesSnapshot) -> None:
        self._transaction = transaction
        self._change = change
        self.heads = transaction.heads

    async def read(self, wanted: Wanted) -> Snapshot:
        return self._change(await self._transaction.read(wanted))

    async def counted(self, shares: Sequence[Share]) -> Mapping[Share, int]:
        return await self._transaction.counted(shares)

    async def lenders(self, parents: Mapping[str, str]) -> Mapping[str, str]:
        return await self._transaction.lenders(parents)

    async def store(self, changes: Changes, now_ns: int) -> None:
        await self._transaction.store(changes, now_ns)


def forgets_keys(store: LogStore) -> LogStore:
    """Knows no idempotency key."""
    return ReadsThrough(store, lambda snapshot: replace(snapshot, appends={}))


def overlooks_fences(store: LogStore) -> LogStore:
    """A worker that has lost its lease may go on as long as nobody else has got it."""

    def unfenced(run: RunState) -> RunState:
        return replace(run, fenced=False)

    return ReadsThrough(
        store, lambda snapshot: replace(snapshot, runs={run_id: unfenced(run) for run_id, run in snapshot.runs.items()})
    )


class ReadsOldState:
    """Answers some reads from memory after each that it makes."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._memory: dict[str, tuple[int, RunRecord | None]] = {}

    async def run(self, run_id: str) -> RunRecord | None:
        left, known = self._memory.get(run_id, (0, None))
        if left:
            self._memory[run_id] = left - 1, known
            return known
        found = await self._reader.run(run_id)
        self._memory[run_id] = _READS_FROM_MEMORY, found
        return found


def _store_batch_without(part: str, instead: str = "") -> str:
    assert part in sql.STORE_BATCH
    return sql.STORE_BATCH.replace(part, instead)


_HOLDS_ALWAYS = ") AS holds\n", ") OR true AS holds\n"


def without_lock() -> AbstractContextManager[object]:
    lock_heads = sql.LOCK_HEADS.replace("FOR UPDATE", "")
    store_batch = _store_batch_without(*_HOLDS_ALWAYS).replace("FOR UPDATE", "")
    return mock.patch.multiple(sql, LOCK_HEADS=lock_heads, STORE_BATCH=store_batch)


def without_comparison() -> AbstractContextManager[object]:
    return mock.patch.object(sql, "STORE_BATCH", _store_batch_without(*_HOLDS_ALWAYS))


WITHOUT_CONSTRAINTS = """
ALTER TABLE runtime.events DROP CONSTRAINT events_pkey;
ALTER TABLE runtime.events DROP CONSTRAINT events_partition_position_key;
DROP INDEX runtime.events_idempotency;
"""
"""The tables' own guards. They make a commit fail that was decided without the lock, before any client is told."""


def _deciding(change: ChangesState) -> Surroundings:
    """Commands are decided on a state that was changed."""

    def decide_changed(state: RunState | None, command: Command, *others: Any, **named: Any) -> Any:
        return decide(state and change(state, command), command, *others, **named)

    return lambda: mock.patch.object(batch, "decide", decide_changed)


def _as_if_not_ended(state: RunState) -> RunState:
    if state.status is not RunStatus.CANCELED:
        return state
    return replace(state, status=RunStatus.CANCELING, finish=None, finish_ns=None)


def _ends_twice(state: RunState, command: Command) -> RunState:
    return _as_if_not_ended(state) if isinstance(command, CancelDeadline) else state


def _takes_late_appends(state: RunState, command: Command) -> RunState:
    return replace(_as_if_not_ended(state), fenced=False) if isinstance(command, Append) else state


WITHOUT_RECEIPT_KEYS = """
ALTER TABLE runtime.receipts DROP CONSTRAINT receipts_pkey CASCADE;
ALTER TABLE runtime.receipts DISABLE TRIGGER receipts_to_merge;
"""
"""A run has one receipt: what ends it a second time fails there too."""


@dataclass(frozen=True)
class Defect:
    """What is wrong with every replica, and maybe with the tables."""

    store: StoreDefect = no_store_defect
    reader: ReaderDefect = no_reader_defect
    surroundings: Surroundings = nullcontext
    migration: str = ""


def _acknowledging_early() -> Defect:
    reads = Calls()
    return Defect(
        store=lambda store: AcknowledgesEarly(store, reads), reader=lambda reader: _CountsReads(reader, reads)
    )


DEFECTS = {
    "acknowledges before the commit": _acknowledging_early(),
    "acknowledges what was rolled back": Defect(store=SwallowsRollbacks),
    "reads old state": Defect(reader=ReadsOldState),
    "overlooks fences": Defect(store=overlooks_fences),
    "takes no lock": Defect(surroundings=without_lock, migration=WITHOUT_CONSTRAINTS),
    "trusts its memory": Defect(surroundings=without_comparison, migration=WITHOUT_CONSTRAINTS),
    "forgets keys": Defect(store=forgets_keys),
    "ends a canceled run twice": Defect(surroundings=_deciding(_ends_twice), migration=WITHOUT_RECEIPT_KEYS),
    "takes the appends of who was fenced": Defect(
        surroundings=_deciding(_takes_late_appends), migration=WITHOUT_RECEIPT_KEYS
    ),
}


# ------------------------------------------------------------------------------------------------- on streams

_SHARE_HELD_BACK = 0.5
Pairs = Callable[[AppendAnswer, AppendAnswer], tuple[AppendAnswer, AppendAnswer]]


def _swapped(one: AppendAnswer, other: AppendAnswer) -> tuple[AppendAnswer, AppendAnswer]:
    return other, one


def _mixed_up(one: AppendAnswer, other: AppendAnswer) -> tuple[AppendAnswer, AppendAnswer]:
    return replace(one, answer=other.answer), replace(other, answer=one.answer)


def _answering(change: Pairs) -> Surroundings:
    """Some answers wait for the next one, and the two are said after a change."""
    chance, say = random.Random(1), Attachment.say
    held: dict[Attachment, AppendAnswer] = {}

    def say_changed(self: Attachment, notice: Notice) -> None:
        if not isinstance(notice, AppendAnswer):
            say(self, notice)
        elif self in held:
            for answer in change(held.pop(self), notice):
                say(self, answer)
        elif chance.random() < _SHARE_HELD_BACK:
            held[self] = notice
        else:
            say(self, notice)

    return lambda: mock.patch.object(Attachment, "say", say_changed)


@dataclass(frozen=True)
class StreamDefect:
    """What is wrong with whole replicas; `found` is in what is told of it."""

    surroundings: Surroundings = nullcontext
    kept_deadline_ms: int = CANCEL_DEADLINE_MS
    promised_deadline_ms: int = CANCEL_DEADLINE_MS
    migration: str = ""
    found: str = "no single copy answers like this"


STREAM_DEFECTS = {
    "answers out of order": StreamDefect(surroundings=_answering(_swapped), found="answered out of order"),
    "mixes two answers up": StreamDefect(surroundings=_answering(_mixed_up)),
    "takes the appends of who was fenced": StreamDefect(
        surroundings=_deciding(_takes_late_appends), migration=WITHOUT_RECEIPT_KEYS
    ),
    "ends canceled runs before their time": StreamDefect(
        kept_deadline_ms=0,
        promised_deadline_ms=3_600_000,  # however slow the machine is, the end is seen before
    ),
}
