"""The one writer of some partitions in this process: many commands, one transaction.

Correct with any number of replicas on the same partitions, because every transaction begins by locking the heads of the
partitions that it writes, always in the same order. Commands are decided in the order in which they were submitted.

A sequencer has more than one partition because a transaction costs about the same for one command as for many: while
few runs are busy, commands of many partitions share one commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from oa_errors import Refusal
from oa_platform.failures import RETRY_AFTER_MS, refusal_of
from oa_runlog.commands import Append, Command
from oa_runlog.decide import Limits
from oa_runlog.receipt import SignedReceipt
from oa_runlog.state import RunState
from services.runtime.app import metrics
from services.runtime.app.limits import SequencerLimits
from services.runtime.app.ports import LogSession, LogStore
from services.runtime.domain.batch import Answer, Applied, Batch, LogRecord, wanted_by

_log = structlog.get_logger(__name__)
Publish = Callable[[Mapping[int, Sequence[LogRecord]]], None]
"""Takes what was committed, in order and at once."""


class Seal(Protocol):
    """Signs the receipt of a run that has ended."""

    def __call__(self, state: RunState) -> SignedReceipt:
        """The receipt."""
        ...


@dataclass(slots=True)
class _Waiter:
    command: Command
    partition: int
    answer: asyncio.Future[Applied]
    size: int
    since: float


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
        self._queue: deque[_Waiter] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    def submit(self, command: Command, partition: int) -> asyncio.Future[Applied]:
        """Queue a command on a run of `partition`; the future gets its answer, or the Refusal.

        Answers come in the order of submission.
        Raises Refusal overloaded when the queue is full, draining when the process goes away. Nobody has to wait for
        the future: the command is carried out all the same.
        """
        if self._closing:
            raise Refusal("draining", "this replica is going away; ask another one", retry_after_ms=RETRY_AFTER_MS)
        if len(self._queue) >= self._limits.queue_commands:
            _count(command, "overloaded")
            text = "too many commands wait for their turn; nothing was done"
            raise Refusal("overloaded", text, retry_after_ms=self._limits.overloaded_retry_ms)
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiter(command, partition, answer, _size(command), time.perf_counter()))
        metrics.QUEUE_COMMANDS.inc()
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Work until closed, with the queue empty."""
        while not (self._closing and not self._queue):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._work()

    def close(self) -> None:
        """Take nothing more; `run` ends once what is queued is answered."""
        self._closing = True
        self._wake.set()

    async def _work(self) -> None:
        """Commit batch after batch on one connection, until the queue is empty or something fails."""
        batch: list[_Waiter] = []
        try:
            async with self._store.session() as session:
                while batch := self._take():
                    await self._commit(session, batch)
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiter is answered
            self._fail(batch or self._take_all(), error)
        except asyncio.CancelledError:
            self._fail([*batch, *self._take_all()], ConnectionError("the process ends"))
            raise

    def _take(self) -> list[_Waiter]:
        batch: list[_Waiter] = []
        size = 0
        while self._queue and len(batch) < self._limits.batch_commands:
            size += self._queue[0].size
            if batch and size > self._limits.batch_bytes:
                break
            batch.append(self._queue.popleft())
        metrics.QUEUE_COMMANDS.dec(len(batch))
        return batch

    def _take_all(self) -> list[_Waiter]:
        waiters = list(self._queue)
        self._queue.clear()
        metrics.QUEUE_COMMANDS.dec(len(waiters))
        return waiters

    async def _commit(self, session: LogSession, waiters: list[_Waiter]) -> None:
        started = time.perf_counter()
        async with session.transaction({waiter.partition for waiter in waiters}) as transaction:
            snapshot = await transaction.read(wanted_by([waiter.command for waiter in waiters]))
            batch = Batch(transaction.positions, snapshot, self._run_limits)
            answers = [self._apply(batch, waiter) for waiter in waiters]
            changes = batch.changes
            if changes.records:
                receipts = [self._seal(changes.runs[run_id]) for run_id in changes.finished]
                await transaction.store(changes, receipts, snapshot.now_ns)
        metrics.BATCH_SECONDS.observe(time.perf_counter() - started)
        metrics.BATCH_COMMANDS.observe(len(waiters))
        if changes.records:
            _count_events(changes.records)
            self._publish(changes.records)
        for waiter, answer in zip(waiters, answers, strict=True):
            _settle(waiter, answer)
        waiters.clear()

    def _apply(self, batch: Batch, waiter: _Waiter) -> Answer:
        try:
            return batch.apply(waiter.command, waiter.partition)
        except Exception:  # noqa: BLE001 - a defect in one command must not take its neighbours with it
            _log.exception("command_failed", command=type(waiter.command).__name__, run_id=waiter.command.run_id)
            return Refusal("internal", "a defect of ours; it has been logged")

    def _fail(self, waiters: list[_Waiter], error: BaseException) -> None:
        """Answer `unavailable`: whether the commit took place may be unknown, and a retry with the key finds out."""
        metrics.BATCHES_FAILED.inc()
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
    types = Counter(record.type for its_own in records.values() for record in its_own)
    for kind, count in types.items():
        metrics.EVENTS_STORED.labels(kind).inc(count)


def _size(command: Command) -> int:
    return sum(len(event.data) for event in command.events) if isinstance(command, Append) else 0


def _settle(waiter: _Waiter, answer: Answer) -> None:
    name = type(waiter.command).__name__
    metrics.COMMAND_SECONDS.labels(name).observe(time.perf_counter() - waiter.since)
    if isinstance(answer, Refusal):
        metrics.COMMANDS.labels(name, answer.reason).inc()
        if not waiter.answer.done():
            waiter.answer.set_exception(answer)
            # Whoever submitted may have gone; asyncio would log an error that nobody asked for.
            waiter.answer.exception()
        return
    metrics.COMMANDS.labels(name, "repeated" if answer.repeated else "stored").inc()
    if not waiter.answer.done():
        waiter.answer.set_result(answer)


def _count(command: Command, outcome: str) -> None:
    metrics.COMMANDS.labels(type(command).__name__, outcome).inc()
