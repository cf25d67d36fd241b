"""Writes of the log: transactions on some partitions, whose heads are locked first and moved last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import asyncpg
import structlog

from oa_base.clock import time_of
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Connection, Postgres
from oa_runlog import wire
from oa_runlog.authority.commands import CreateRun
from oa_runlog.authority.decide import KnownKey
from oa_runlog.state import RunState
from oa_runlog.workers import WorkerStatus
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Changes, CreateKey, Snapshot, Wanted
from services.runtime.log.domain.shares import Share, ShareKind, is_of_families
from services.runtime.log.store import sql
from services.runtime.log.store.rows import moving_values, queue_values, state_of

_log = structlog.get_logger(__name__)
_KEYS = {"events_idempotency", "runs_create_key"}
"""The indexes that find an idempotency key that was used before."""
_NO_KEY = (None, None, None)


class CommitNotification(Protocol):
    """A fan-out's addition to the statement that stores a batch. It takes effect with the batch or not at all."""

    def expression(self, first: int) -> str:
        """Return SQL that is evaluated once if the batch is stored. Its arguments are numbered from `first` on."""
        ...

    def arguments(self, heads: Mapping[int, Head]) -> Sequence[str]:
        """Return the arguments for a batch that moves the heads to these."""
        ...


class NoNotification:
    """For a fan-out that tells after the commit, or if there is none."""

    def expression(self, _first: int) -> str:
        """Return the SQL NULL."""
        return "NULL"

    def arguments(self, _heads: Mapping[int, Head]) -> Sequence[str]:
        """Return no arguments."""
        return ()


_NO_NOTIFICATION = NoNotification()


class PostgresLog:
    """The log store of one replica."""

    def __init__(self, postgres: Postgres, notification: CommitNotification = _NO_NOTIFICATION) -> None:
        self._postgres = postgres
        self._notification = notification

    @asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresLogSession]:
        """A connection for a sequencer that has work."""
        async with self._postgres.acquire() as connection:
            yield PostgresLogSession(self._postgres, connection, self._notification)


class PostgresLogSession:
    """One connection."""

    def __init__(self, postgres: Postgres, connection: Connection, notification: CommitNotification) -> None:
        self._postgres = postgres
        self._generation = postgres.generation
        self._connection = connection
        self._batches = _PostgresBatches(connection, notification, postgres.may_lose_commits)

    @property
    def is_open(self) -> bool:
        """Whether the connection is neither known to be gone nor given up."""
        try:
            return self._generation == self._postgres.generation and not self._connection.is_closed()
        except asyncpg.InterfaceError:
            return False  # the pool has taken it back

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        """Store a batch decided on these; return False and store nothing if one has changed or a key was used."""
        try:
            return await self._batches.store(heads, runs, changes, now_ns)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name not in _KEYS:
                raise
            return False

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[PostgresLogTransaction]:
        """Begin, lock the partitions' heads; commit at the end, roll back on any exception."""
        async with self._connection.transaction():
            rows = await self._connection.fetch(sql.LOCK_HEADS, list(partitions))
            heads = {row["partition"]: Head(row["position"], row["chain"] or b"") for row in rows}
            yield PostgresLogTransaction(self._connection, self._batches, heads)


class PostgresLogTransaction:
    """A transaction that holds the locks of its partitions' heads."""

    def __init__(self, connection: Connection, batches: _PostgresBatches, heads: Mapping[int, Head]) -> None:
        self._connection = connection
        self._batches = batches
        self.heads = heads

    async def read(self, wanted: Wanted) -> Snapshot:
        """Read the state on which the batch is decided."""
        rows = await self._connection.fetch(sql.READ_RUNS, wanted.run_ids, wanted.append_keys)
        runs: dict[str, RunState] = {}
        appends: dict[tuple[str, str], KnownKey] = {}
        broken: set[str] = set()
        for row in rows:
            run_id = row["run_id"]
            if run_id is None:
                continue
            try:
                runs[run_id] = state_of(row)
            except Exception as error:  # noqa: BLE001 - the commands on other runs must not fail with it
                note_survived(_log, "run_not_readable", error, run_id=run_id)
                broken.add(run_id)
            known = zip(*(row[name] or () for name in ("keys", "fingerprints", "first_seqs", "counts")), strict=True)
            for key, mark, first_seq, count in known:
                appends[run_id, key] = KnownKey(run_id, mark, first_seq, count)
        creates, gone = await self._created(wanted.create_keys), await self._gone(wanted.assignees)
        return Snapshot(rows[0]["now_us"] * 1000, rows[0]["log_epoch"], runs, appends, creates, gone, broken)

    async def _gone(self, worker_ids: Sequence[str]) -> set[str]:
        """Return those that are lost or stopped; the others keep their status until the transaction ends."""
        if not worker_ids:
            return set()
        rows = await self._connection.fetch(sql.LOCK_WORKERS, worker_ids)
        return {row["worker_id"] for row in rows if row["status"] in (WorkerStatus.LOST, WorkerStatus.STOPPED)}

    async def counted(self, shares: Sequence[Share]) -> dict[Share, int]:
        """Return how many runs count in each share. No share grows elsewhere until the transaction ends."""
        await self._connection.execute(sql.LOCK_SHARES, ["/".join(share) for share in shares])
        orgs = list({share.org_id for share in shares if is_of_families([share])})
        rows = await self._connection.fetch(sql.COUNT_SHARES, *columns(shares, 3), orgs)
        return {Share(ShareKind(row["kind"]), row["org_id"], row["name"]): row["runs"] for row in rows}

    async def lenders(self, parents: Mapping[str, str]) -> dict[str, str]:
        """Return which of the runs, each with its parent, take a place that is already counted, and whose it is."""
        rows = await self._connection.fetch(sql.READ_LENDERS, list(parents), list(parents.values()))
        return {row["run_id"]: row["lender"] for row in rows}

    async def _created(self, keys: Sequence[CreateKey]) -> dict[CreateKey, KnownKey]:
        if not keys:
            return {}
        rows = await self._connection.fetch(sql.READ_CREATE_KEYS, *columns(keys, 3))
        return {
            (row["org_id"], row["user_id"], row["create_key"]): KnownKey(row["run_id"], row["create_fingerprint"], 1, 1)
            for row in rows
        }

    async def store(self, changes: Changes, now_ns: int) -> None:
        """Store the batch."""
        if not await self._batches.store(self.heads, (), changes, now_ns):
            raise AssertionError("a locked head has moved")


class _PostgresBatches:
    """Stores batches over one connection."""

    def __init__(self, connection: Connection, notification: CommitNotification, may_lose_commits: bool) -> None:
        self._connection = connection
        self._appending, self._whole = (sql.store_batch(notification.expression, more=more) for more in (False, True))
        self._notification = notification
        self._may_lose_commits = may_lose_commits

    async def store(
        self, heads: Mapping[int, Head], known: Collection[RunState], changes: Changes, now_ns: int
    ) -> bool:
        """Store a batch if the partitions that grow still have `heads` and the runs are still as `known`.

        Raises Refusal unavailable if the server would not keep them.
        """
        before = [heads[partition] for partition in changes.heads]
        moved = [(run_id, *moving_values(run)) for run_id, run in changes.runs.items() if run_id not in changes.created]
        more = bool(changes.created or changes.receipts or changes.takers)
        row = await self._connection.fetchrow(
            self._whole if more else self._appending,
            time_of(now_ns),
            _event_rows(changes),
            moved,
            list(changes.heads),
            [head.position for head in before],
            [head.chain or None for head in before],
            [(run.run_id, run.latest_seq, run.chain_head) for run in known],
            [head.position for head in changes.heads.values()],
            [head.chain for head in changes.heads.values()],
            self._may_lose_commits,
            *(_more(changes) if more else ()),
            *self._notification.arguments(changes.heads),
        )
        assert row is not None  # it selects from no table
        if not row["keeps"]:
            raise Refusal(
                "unavailable", "the database may lose what it acknowledges, and nothing was stored; send it again"
            )
        return bool(row["holds"])


def _more(changes: Changes) -> tuple[object, ...]:
    """The further arguments of `sql.store_batch`: new runs, receipts, their epoch, and the workers that get a run."""
    receipts = [(one.run_id, one.canonical_json, one.signature, one.key_id) for one in changes.receipts]
    return _created_rows(changes), receipts, changes.log_epoch, changes.takers


def _created_rows(changes: Changes) -> list[tuple[object, ...]]:
    """The new runs as rows of runtime.new_run."""
    partitions = {record.run_id: partition for partition, records in changes.records.items() for record in records}
    return [
        _created_row(partitions[run_id], command, changes.runs[run_id]) for run_id, command in changes.created.items()
    ]


def _created_row(partition: int, command: CreateRun, state: RunState) -> tuple[object, ...]:
    spec = command.spec
    return (
        state.run_id,
        partition,
        command.org_id,
        command.user_id,
        command.idempotency_key,
        command.fingerprint,
        spec.adapter,
        spec.retention,
        wire.encode_spec(spec),
        time_of(state.create_ns),
        *queue_values(spec),
        command.parent_run_id,
        command.cancel_with_parent,
        *moving_values(state),
    )


def _event_rows(changes: Changes) -> list[tuple[object, ...]]:
    """The new events as rows of runtime.new_event."""
    keys = changes.keys
    return [
        (partition, *record, *keys.get((record.run_id, record.seq), _NO_KEY))
        for partition, records in changes.records.items()
        for record in records
    ]
