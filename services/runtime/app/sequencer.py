"""The one writer of the log in this process: many commands, one transaction.

Correct with any number of replicas on the same partitions, because every transaction begins by locking the heads of the
partitions that it writes, always in the same order. Commands of a partition are decided in the order in which they were
submitted. What is known from the last batches need not be read again: see `domain.memory`.

A transaction costs about the same for one command as for many, so commands of many partitions share one commit. While
it is under way, a second one begins beside it, on other partitions, if enough waits to be worth it: `command_queue`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import structlog

from oa_errors import Refusal
from oa_platform.failures import RETRY_AFTER_MS, refusal_of
from oa_runlog.commands import AssignRun, Command
from oa_runlog.decide import Limits
from oa_runlog.receipt import SignedReceipt
from oa_runlog.state import RunState
from services.runtime.app import metrics
from services.runtime.app.command_queue import CommandQueue, Turn, Waiter
from services.runtime.app.fanout import Publish
from services.runtime.app.limits import SequencerLimits
from services.runtime.app.ports import LogSession, LogStore
from services.runtime.domain.batch import Answer, Applied, Batch, Changes, Head, LogRecord, Snapshot, wanted_by
from services.runtime.domain.memory import Memory
from services.runtime.domain.pipeline import Place

_log = structlog.get_logger(__name__)


class Seal(Protocol):
    """Signs the receipt of a run that has ended."""

    def __call__(self, state: RunState, log_epoch: str) -> SignedReceipt:
        """The receipt, which states the log's epoch."""
        ...


@dataclass(frozen=True, slots=True)
class _Decided:
    """A batch and the answers to its commands, in order."""

    batch: Batch
    answers: list[Answer]

    @property
    def changes(self) -> Changes:
        return self.batch.changes

    @property
    def is_all_new(self) -> bool:
        """Every command is stored now, for the first time."""
        return all(isinstance(answer, Applied) and not answer.repeated for answer in self.answers)


class Sequencer:
    """Drains the queue of its partitions. `run` does the work until `close` has let it finish."""

    def __init__(
        self, store: LogStore, run_limits: Limits, limits: SequencerLimits, seal: Seal, publish: Publish
    ) -> None:
        self._store = store
        self._run_limits = run_limits
        self._limits = limits
        self._seal = seal
        self._publish = publish
        self._queue = CommandQueue(limits)
        self._memory = Memory(limits.remembered_runs, limits.remembered_ms)
        self._changed = asyncio.Event()
        self._closing = False

    def submit(self, command: Command, partition: int, place: Place | None = None) -> asyncio.Future[Applied]:
        """Queue a command on a run of `partition`; the future gets its answer, or the Refusal.

        Commands of a partition are carried out and answered in the order of submission. With `place`, an append that
        would overtake one of its stream is refused.
        Raises Refusal overloaded when the queue is full, draining when the process goes away. Nobody has to wait for
        the future: the command is carried out all the same.
        """
        if self._closing:
            raise Refusal("draining", "this replica is going away; ask another one", retry_after_ms=RETRY_AFTER_MS)
        if self._queue.is_full:
            _count_of(type(command).__name__, "overloaded").inc()
            text = "too many commands wait for their turn; nothing was done"
            raise Refusal("overloaded", text, retry_after_ms=self._limits.overloaded_retry_ms)
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._queue.put(Waiter(command, partition, answer, time.perf_counter(), place))
        metrics.QUEUE_COMMANDS.inc()
        if self._queue.has_turn:
            self._changed.set()
        return answer

    async def run(self) -> None:
        """Work until closed, with the queue empty."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._limits.lanes):
                lanes.create_task(self._lane(), name="sequencer-lane")

    def close(self) -> None:
        """Take nothing more; `run` ends once what is queued is answered."""
        self._closing = True
        self._changed.set()

    async def _lane(self) -> None:
        """Commit turn after turn until closed, on a new connection whenever the old one is gone."""
        turn = await self._next()
        while turn is not None:
            turn = await self._on_one_connection(turn)

    async def _next(self) -> Turn | None:
        """The next turn; None once closed and done."""
        while True:
            self._changed.clear()
            turn = self._queue.take()
            if turn is not None:
                metrics.QUEUE_COMMANDS.dec(len(turn.waiters))
                return turn
            if self._closing and not self._queue:
                return None
            await self._changed.wait()

    async def _on_one_connection(self, turn: Turn) -> Turn | None:
        """Commit a turn and those after it, for as long as the connection lasts; returns what comes next."""
        now: Turn | None = turn
        connected = False
        try:
            async with self._store.session() as session:
                connected = True
                self._memory.forget()  # it may be another server, with another past
                while now is not None and session.is_open:
                    await self._commit(session, now.waiters)
                    self._done(now)
                    now = await self._next()
                return now
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiter is answered
            # Without a connection whatever waits would only wait longer to hear the same.
            self._fail([*(now.waiters if now else ()), *(() if connected else self._take_all())], error)
        except asyncio.CancelledError:
            self._fail([*(now.waiters if now else ()), *self._take_all()], ConnectionError("the process ends"))
            raise
        if now is not None:
            self._done(now)
        return await self._next()

    def _done(self, turn: Turn) -> None:
        self._queue.done(turn)
        self._changed.set()

    def _take_all(self) -> list[Waiter]:
        waiters = self._queue.take_all()
        metrics.QUEUE_COMMANDS.dec(len(waiters))
        return waiters

    async def _commit(self, session: LogSession, waiters: list[Waiter]) -> None:
        started = time.perf_counter()
        wanted = {waiter.command.run_id: waiter.partition for waiter in waiters}
        decided = await self._from_memory(session, waiters, wanted)
        if decided is None:
            decided = await self._from_database(session, waiters, wanted)
        metrics.BATCH_SECONDS.observe(time.perf_counter() - started)
        metrics.BATCH_COMMANDS.observe(len(waiters))
        if decided.changes.records:
            _count_events(decided.changes.records)
            self._publish(decided.changes.records)
        for waiter, answer in zip(waiters, decided.answers, strict=True):
            _settle(waiter, answer)
        waiters.clear()

    async def _from_memory(
        self, session: LogSession, waiters: Sequence[Waiter], wanted: Mapping[str, int]
    ) -> _Decided | None:
        """Decide on what is remembered, and store it if that is still so: one round trip. None if it can't be done.

        Only what is new to the log is answered so. A refusal may be due to what others have changed meanwhile, or
        stand where a known key has to be recognized: the database has to be asked.
        """
        if any(isinstance(waiter.command, AssignRun) for waiter in waiters):
            return None  # whether the worker is still there is not remembered
        recalled = self._memory.recall(wanted, time.monotonic_ns())
        if recalled is None:
            return None
        decided = self._decide(recalled.heads, recalled.snapshot, waiters)
        if not decided.is_all_new or decided.changes.created or decided.changes.finished:
            return None
        snapshot = recalled.snapshot
        if not await session.store(recalled.heads, snapshot.runs.values(), decided.changes, snapshot.now_ns):
            metrics.BATCHES.labels("overtaken").inc()
            self._memory.overtaken(recalled.heads)
            return None
        metrics.BATCHES.labels("remembered").inc()
        self._memory.stored(recalled.heads)
        self._learn(recalled.heads, decided, wanted)
        return decided

    async def _from_database(
        self, session: LogSession, waiters: Sequence[Waiter], wanted: Mapping[str, int]
    ) -> _Decided:
        """Lock the partitions, read, decide, store. What was read is remembered."""
        async with session.transaction(set(wanted.values())) as transaction:
            snapshot = await transaction.read(wanted_by([waiter.command for waiter in waiters]))
            self._memory.clock(snapshot.now_ns, time.monotonic_ns())
            decided = self._decide(transaction.heads, snapshot, waiters)
            changes = decided.changes
            if changes.records:
                receipts = [self._seal(changes.runs[run_id], snapshot.log_epoch) for run_id in changes.finished]
                await transaction.store(changes, receipts, snapshot.now_ns)
        metrics.BATCHES.labels("read").inc()
        self._learn(transaction.heads, decided, wanted)
        return decided

    def _decide(self, heads: Mapping[int, Head], snapshot: Snapshot, waiters: Sequence[Waiter]) -> _Decided:
        batch = Batch(heads, snapshot, self._run_limits)
        answers = [self._apply(batch, waiter) for waiter in waiters]
        return _Decided(batch, answers)

    def _learn(self, heads: Mapping[int, Head], decided: _Decided, partitions: Mapping[str, int]) -> None:
        runs = decided.batch.runs
        self._memory.learn(heads, decided.batch.heads, [(run, partitions[run_id]) for run_id, run in runs.items()])

    def _apply(self, batch: Batch, waiter: Waiter) -> Answer:
        answer: Answer
        try:
            answer = batch.apply(waiter.command, waiter.partition, waiter.place)
        except Exception:  # noqa: BLE001 - a defect in one command must not take its neighbours with it
            _log.exception("command_failed", command=type(waiter.command).__name__, run_id=waiter.command.run_id)
            answer = Refusal("internal", "a defect of ours; it has been logged")
        if waiter.place is not None:
            batch.answered(waiter.place, answer)
        return answer

    def _fail(self, waiters: list[Waiter], error: BaseException) -> None:
        """Answer `unavailable`: whether the commit took place may be unknown, and a retry with the key finds out."""
        metrics.BATCHES_FAILED.inc()
        self._memory.forget()
        known = refusal_of(error)
        if known is not None:
            _log.warning("batch_failed", commands=len(waiters), reason=known.reason)
        else:
            _log.error("batch_failed", commands=len(waiters), exc_info=error)
        text = "the log can't be written now; send it again with the same key"
        refusal = Refusal("unavailable", text, retry_after_ms=RETRY_AFTER_MS)
        for waiter in waiters:
            _settle(waiter, refusal)


def _count_events(records: Mapping[int, Sequence[LogRecord]]) -> None:
    types = Counter([record.type for its_own in records.values() for record in its_own])
    for kind, count in types.items():
        metrics.EVENTS_STORED.labels(kind).inc(count)


def _settle(waiter: Waiter, answer: Answer) -> None:
    name = type(waiter.command).__name__
    if waiter.place is not None:
        waiter.place.pipeline.answered(waiter.place, answer)
    _seconds_of(name).observe(time.perf_counter() - waiter.since)
    if isinstance(answer, Refusal):
        _count_of(name, answer.reason).inc()
        if not waiter.answer.done():
            waiter.answer.set_exception(answer)
            # Whoever submitted may have gone; asyncio would log an error that nobody asked for.
            waiter.answer.exception()
        return
    _count_of(name, "repeated" if answer.repeated else "stored").inc()
    if not waiter.answer.done():
        waiter.answer.set_result(answer)


# Finding a metric by its labels costs more than counting.
_seconds_of, _count_of = cache(metrics.COMMAND_SECONDS.labels), cache(metrics.COMMANDS.labels)
