"""The one sequencer of the log in this process: many commands, one transaction.

    submit -> CommandQueue -> PendingBatch -> a writer: decide, commit -> publish -> answers

This is correct with any number of replicas on the same partitions, because every transaction begins by locking the
heads of the partitions that it writes, always in the same order. Commands of a partition are decided, and answered, in
the order in which they were submitted. State known from the last batches need not be read again: see `domain.cache`.

A transaction costs about the same for one command as for many, so commands of many partitions share one commit. While
one is under way, another writer begins a second one, on other partitions, if enough commands wait to make it
worthwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cache

import structlog

from oa_base.refusal import Refusal
from oa_platform.health.failures import RETRY_AFTER_MS, refusal_of
from oa_platform.tasks.ending import is_to_end
from oa_runlog.authority.commands import Command
from oa_runlog.authority.limits import RunLimits
from services.runtime.log import metrics
from services.runtime.log.app.batch_writer import BatchWriter, Seal
from services.runtime.log.app.command_queue import CommandQueue
from services.runtime.log.app.fanout import Publish
from services.runtime.log.app.pending import PendingBatch, PendingCommand, count_command, org_of
from services.runtime.log.app.ports import LogSession, LogStore
from services.runtime.log.app.traces import COMMITTED, PUBLISHED, commit_span
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.cache import LogCache
from services.runtime.log.domain.pipeline import Place
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import SequencerLimits

_log = structlog.get_logger(__name__)
_stored_of = cache(metrics.EVENTS_STORED.labels)  # finding a metric by its label costs more than counting


class Sequencer:
    """Drains the queue of its partitions. `run` does the work until `close` has let it finish."""

    def __init__(
        self, store: LogStore, run_limits: RunLimits, limits: SequencerLimits, seal: Seal, publish: Publish
    ) -> None:
        self._store = store
        self._limits = limits
        self._publish = publish
        self._queue = CommandQueue(limits)
        self._cache = LogCache(limits.cached_runs, limits.cache_max_age_ms)
        self._batches = BatchWriter(run_limits, seal, self._cache)
        self._changed = asyncio.Event()
        """Set whenever there may be new work for a writer."""
        self._closing = False
        self._pasts = 0
        """How many times the log has got a different past."""

    def submit(self, command: Command, partition: int, place: Place | None = None) -> asyncio.Future[Applied]:
        """Queue a command on a run of `partition`; the future gets its answer, or the Refusal.

        Commands of a partition are carried out and answered in the order of submission. With `place`, an append that
        would overtake one of its stream is refused. Raises Refusal overloaded when the queue is full, or almost full
        with commands of the same org, draining when the process is shutting down. Nobody has to wait for the future:
        the command is carried out all the same.
        """
        if self._closing:
            raise Refusal("draining", "this replica is going away; ask another one", retry_after_ms=RETRY_AFTER_MS)
        if not self._queue.has_room(org_of(command)):
            count_command(type(command).__name__, "overloaded")
            text = "too many commands wait, and nothing was done; send it again later"
            raise Refusal("overloaded", text, retry_after_ms=self._limits.overloaded_retry_ms)
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._queue.put(PendingCommand(command, partition, answer, place))
        metrics.QUEUE_COMMANDS.inc()
        if self._queue.is_due:
            self._changed.set()
        return answer

    async def run(self) -> None:
        """Work until closed and the queue is empty. However this ends, every submitted command is answered."""
        try:
            async with asyncio.TaskGroup() as writers:
                for _ in range(self._limits.writers):
                    writers.create_task(self._write(), name="sequencer-writer")
        finally:
            self.close()
            self._fail_waiting(asyncio.CancelledError())

    def close(self) -> None:
        """Take no more commands; `run` ends once the queued ones are answered."""
        self._closing = True
        self._changed.set()

    def restart(self) -> None:
        """Drop the cache: the log has a different past. A batch under way may have been stored in the old one."""
        self._pasts += 1
        self._cache.clear()

    async def _write(self) -> None:
        """One writer: commit until closed, on a new connection whenever the old one is gone."""
        while (batch := await self._next_batch()) is not None:
            # A failure ends the connection. The commands concerned have been answered, and it has been logged.
            try:
                with suppress(Exception):
                    async with AsyncExitStack() as stack:
                        session = await self._connect(stack, batch)
                        await self._write_over(session, batch)
            except asyncio.CancelledError:
                if is_to_end():
                    raise

    async def _next_batch(self) -> PendingBatch | None:
        """Wait for a batch and take it; None once closed and nothing is left."""
        while (batch := self._queue.take()) is None:
            if self._closing and not self._queue:
                return None
            self._changed.clear()
            await self._changed.wait()
        metrics.QUEUE_COMMANDS.dec(len(batch.commands))
        return batch

    async def _connect(self, stack: AsyncExitStack, batch: PendingBatch) -> LogSession:
        """A new connection, for a batch that needs one."""
        try:
            session = await stack.enter_async_context(self._store.session())
        except BaseException as error:
            self._fail(batch.commands, error)
            self._done(batch)
            self._fail_waiting(error)  # these would only wait longer for the same answer
            raise
        self._cache.clear()  # it may be another server, with a different past
        return session

    async def _write_over(self, session: LogSession, first: PendingBatch) -> None:
        """Commit batch after batch, until closed or for as long as the connection lasts."""
        batch: PendingBatch | None = first
        while batch is not None and session.is_open:
            await self._commit(session, batch)
            batch = await self._next_batch()
        if batch is not None:
            self._give_back(batch)

    async def _commit(self, session: LogSession, batch: PendingBatch) -> None:
        """Write a batch, publish it, and answer its commands, in this order.

        If the log has got a different past in the meantime, the server that stored the batch may be the one that was
        left. Then nothing is published: the tail, which has started over, looks at the log's heads and reads the batch
        if it is there.
        """
        left = list(batch.commands)
        try:
            await self._store_all(session, left)
        except BaseException as error:
            self._fail(left, error)
            raise
        finally:
            self._done(batch)

    async def _store_all(self, session: LogSession, left: list[PendingCommand]) -> None:
        """Write and answer the commands, and remove from the list those that are answered.

        If a defect breaks the batch, each of its commands is written by itself, so that only the one with the defect is
        answered `unavailable`. A command that was stored before is recognized as a repetition.
        """
        try:
            await self._store_and_answer(session, left)
            left.clear()
        except Exception as error:
            if len(left) == 1 or refusal_of(error) is not None or not session.is_open:
                raise
            _log.error("batch_split", commands=len(left), exc_info=error)
            self._cache.clear()
        while left:
            try:
                await self._store_and_answer(session, left[:1])
            except Exception as error:
                if refusal_of(error) is not None or not session.is_open:
                    raise
                self._fail(left[:1], error)
            del left[0]

    async def _store_and_answer(self, session: LogSession, commands: Sequence[PendingCommand]) -> None:
        past = self._pasts
        with commit_span(commands) as span:
            decided = await self._batches.write(session, commands)
            span.add_event(COMMITTED)
            if decided.changes.records:
                _count_events(decided.changes.records)
                if past == self._pasts:
                    self._publish(decided.changes.records)
                    span.add_event(PUBLISHED)
        for pending, answer in zip(commands, decided.answers, strict=True):
            pending.settle(answer)

    def _done(self, batch: PendingBatch) -> None:
        self._queue.done(batch)
        self._changed.set()

    def _give_back(self, batch: PendingBatch) -> None:
        """Put a batch back, for whichever writer is free first."""
        metrics.QUEUE_COMMANDS.inc(len(batch.commands))
        self._queue.give_back(batch)
        self._changed.set()

    def _fail_waiting(self, error: BaseException) -> None:
        """Fail the waiting commands, except those that would be answered before a command of a batch under way."""
        waiting = self._queue.take_free()
        metrics.QUEUE_COMMANDS.dec(len(waiting))
        if waiting:
            self._fail(waiting, error)

    def _fail(self, commands: Sequence[PendingCommand], error: BaseException) -> None:
        """Answer `unavailable`: it may be unknown whether the commit took place, and a retry with the key finds out."""
        metrics.BATCHES_FAILED.inc()
        self._cache.clear()
        known = refusal_of(ConnectionError() if isinstance(error, asyncio.CancelledError) else error)
        if known is not None:
            _log.warning("batch_failed", commands=len(commands), reason=known.reason)
        else:
            _log.error("batch_failed", commands=len(commands), exc_info=error)
        text = "the log can't be written now; send it again with the same key"
        refusal = Refusal("unavailable", text, retry_after_ms=RETRY_AFTER_MS)
        for pending in commands:
            pending.settle(refusal)


def _count_events(records: Mapping[int, Sequence[LogRecord]]) -> None:
    types = Counter([record.type for its_own in records.values() for record in its_own])
    for kind, count in types.items():
        _stored_of(kind).inc(count)
