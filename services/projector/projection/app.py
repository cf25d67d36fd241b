"""The tail: keeps the read model up to date with runtime's log.

A *session* asks where the log stands, reads the checkpoints, opens the stream after them, and applies what arrives,
with one queue for each partition. Any failure ends the session, and the next one starts from the checkpoints again.
Checkpoints move only in the transaction that stores the data they stand for, so no end of a session, not even SIGKILL,
loses or repeats an entry. Replicas race for each batch: one of them applies it, and the others continue after it. An
entry that a defect keeps from being applied is set aside with its run; the rest of the partition goes on. A log that
breaks the rules of a log (`LogRefused`) halts the tail instead.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import concerns_all
from oa_platform.tasks.ending import cancel_and_wait
from services.projector.projection.domain import (
    Checkpoint,
    HaltCause,
    LogBatch,
    LogRefused,
    LogState,
    after,
    check_epoch,
    check_filled,
    check_lineage,
    halves,
    joined,
)
from services.projector.projection.limits import TailLimits
from services.projector.projection.metrics import Progress

_log = structlog.get_logger(__name__)


class CheckpointMoved(Exception):
    """The checkpoint is not where the batch starts, because another replica applied it. Read the checkpoints again."""


class LogSource(Protocol):
    """runtime's LogService. Every call raises Refusal when runtime is away; callers should then ask again."""

    async def describe(self) -> LogState:
        """Where the log stands."""

    def tail(self, epoch: str, after: Mapping[int, int]) -> AsyncIterator[LogBatch]:
        """Everything after the positions, without end. Raises LogRefused."""


class CheckpointStore(Protocol):
    """The checkpoints of projections. Raises Refusal when the database is away."""

    async def ensure(self, log_epoch: str, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """The checkpoint of each partition, created at position 0 where there is none."""

    async def all(self) -> list[Checkpoint]:
        """Every checkpoint of every projection, sorted by projection, version and partition."""


class CheckpointWriter(Protocol):
    """The checkpoints in a batch's transaction."""

    async def advance(self, old: Checkpoint, position: int) -> None:
        """Move the checkpoint from `old`, and lock others out until the transaction ends. Raises CheckpointMoved."""

    async def lock(self, projection: str, version: int, partition: int) -> None:
        """Lock others out of the partition until the transaction ends, wherever its checkpoint is."""

    async def lock_all(self, projection: str, version: int) -> None:
        """Lock others out of all partitions until the transaction ends."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch that has been stored: the checkpoint after it, and the numbers of rows and drifts that resulted."""

    checkpoint: Checkpoint
    journal_rows: int
    drifts: int


class Projection(Protocol):
    """A projection of the log. Batches of different partitions may be applied at the same time."""

    async def apply(self, checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        """Apply `batch`, which follows `checkpoint`, in one transaction with the checkpoint.

        Raises CheckpointMoved, LogRefused: then nothing was stored. Raises Refusal when the database went away: then
        the batch may have been stored, and only the checkpoints tell. Raises anything else for a defect, which
        `set_aside` contains if it is one of a single entry.
        """

    async def is_empty(self) -> bool:
        """Whether there is nothing that an entry could have led to. Raises Refusal when the database is away."""

    async def set_aside(self, checkpoint: Checkpoint, batch: LogBatch, error: Exception) -> Applied:
        """Have the only entry of `batch` wait, because applying it raised `error`; later entries of its run will too.

        Raises as `apply` does, and `error` if too many runs are set aside: then nothing was stored.
        """


@dataclass
class _Partition:
    """One partition: the batches that have arrived and are not applied yet."""

    checkpoint: Checkpoint
    queue: asyncio.Queue[LogBatch]
    limit_events: int
    progress: Progress = field(repr=False)
    applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while entries are being applied."""

    async def next_batch(self) -> tuple[LogBatch, int]:
        """The next entries, as many as one transaction takes, and the number of queued batches that they come from.

        Raises LogRefused(hole).
        """
        parts: list[LogBatch] = []
        position, size, taken = self.checkpoint.position, 0, 0
        while not parts or (not self.queue.empty() and size < self.limit_events):
            batch = after(position, await self.queue.get())
            if batch is None:
                self.progress.repeated_batches += 1
                self.queue.task_done()
                continue
            parts.append(batch)
            position, size, taken = batch.last_position, size + len(batch.events), taken + 1
        return joined(parts), taken


class Tail:
    """Runs sessions until canceled or halted."""

    def __init__(
        self,
        source: LogSource,
        checkpoints: CheckpointStore,
        projection: Projection,
        progress: Progress,
        *,
        limits: TailLimits,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._checkpoints = checkpoints
        self._projection = projection
        self._progress = progress
        self._limits = limits
        self._backoff = Backoff(limits.backoff_min_ms, limits.backoff_max_ms)
        self._jitter = jitter
        self._failures = 0
        self._reached: dict[int, Checkpoint] = {}
        """Partition -> the newest checkpoint that this process has seen committed."""

    async def run(self) -> None:
        """Run sessions with backoff between them. Returns when the log was refused; see `Progress.halted`."""
        while not self._progress.halted:
            ended = await self._until_ended()
            if ended is not None:
                await self._pause(*ended)

    async def _until_ended(self) -> tuple[str, Exception] | None:
        """Run one session, and return what ended it; None when the log was refused."""
        # In a separate task: if a group of tasks fails and is canceled at the same time, the failure hides the
        # cancellation, and nobody sees it (CPython before 3.13).
        session = asyncio.create_task(self._session())
        try:
            await asyncio.wait([session])
        finally:
            await cancel_and_wait(session)
        ended: tuple[str, Exception] | None = None
        try:
            session.result()
        except* LogRefused as group:
            refused = _first(group)
            assert isinstance(refused, LogRefused)
            self._progress.halt(refused.cause, str(refused))
            # Logged as an error, and alarms are made from this line: the tail does not recover by itself.
            _log.error("projection_halted", cause=refused.cause, detail=str(refused))
        except* CheckpointMoved as group:
            ended = "checkpoint_moved", _first(group)
        except* Refusal as group:
            refusal = _first(group)
            assert isinstance(refusal, Refusal)
            ended = refusal.reason, refusal
        except* Exception as group:  # noqa: BLE001 - the next process would meet the same defect
            ended = "internal", _first(group)
            note_survived(_log, "tail_broken", ended[1])
        return None if self._progress.halted else ended

    async def _session(self) -> None:
        first = await self._source.describe()
        checkpoints = await self._checkpoints.ensure(first.epoch, first.heads.keys())
        # Ask again, because another replica may have applied entries that were committed after the first answer.
        state = await self._source.describe()
        check_lineage(state, checkpoints)
        self._reached.update(checkpoints)
        await self._check_filled()
        applied = {number: checkpoint.position for number, checkpoint in checkpoints.items()}
        partitions = {number: self._partition(checkpoint) for number, checkpoint in checkpoints.items()}
        self._progress.opened(applied, state.heads)
        behind = sum(self._progress.lag(number) for number in state.heads)
        _log.info("tail_opened", epoch=state.epoch, partitions=len(state.heads), behind=behind)
        async with asyncio.TaskGroup() as tasks:
            for partition in partitions.values():
                tasks.create_task(self._apply(partition, partitions.values()))
            tasks.create_task(self._watch_heads(state.epoch))
            tasks.create_task(self._read(state.epoch, applied, partitions))

    def _partition(self, checkpoint: Checkpoint) -> _Partition:
        queue: asyncio.Queue[LogBatch] = asyncio.Queue(self._limits.queue_batches)
        return _Partition(checkpoint, queue, self._limits.batch_events, self._progress)

    async def _read(self, epoch: str, applied: Mapping[int, int], partitions: Mapping[int, _Partition]) -> None:
        """Put arriving batches into their queues; a full queue holds back the stream, and so runtime.

        Batches that have arrived are applied even when the stream breaks: a network that cuts every session short would
        otherwise keep the projection from ever moving.
        """
        try:
            async for batch in self._source.tail(epoch, applied):
                partition = partitions.get(batch.partition)
                if partition is None:
                    raise LogRefused(HaltCause.HOLE, f"partition {batch.partition} came and was not asked for")
                await partition.queue.put(batch)
        except Refusal:
            await _drained(partitions.values())
            raise
        await _drained(partitions.values())
        raise Refusal("unavailable", "runtime ended the stream; follow it again")

    async def _apply(self, partition: _Partition, partitions: Iterable[_Partition]) -> None:
        while True:
            batch, taken = await partition.next_batch()
            try:
                async with partition.applying:
                    await self._apply_all(partition, batch)
            except (LogRefused, CheckpointMoved):
                raise
            except Exception as error:
                if isinstance(error, Refusal) and concerns_all(error):
                    raise
                # A defect that can't be contained ends the session; the other partitions move on for a while first,
                # and end what they have begun: a slow database would otherwise never let them finish anything.
                await asyncio.sleep(self._limits.backoff_max_ms / 1000)
                await _at_rest(partitions)
                raise
            self._failures = 0
            for _ in range(taken):
                partition.queue.task_done()

    async def _apply_all(self, partition: _Partition, batch: LogBatch) -> None:
        rest = after(partition.checkpoint.position, batch)
        while rest is not None:
            rest = await self._apply_once(partition, rest)

    async def _apply_once(self, partition: _Partition, batch: LogBatch) -> LogBatch | None:
        """Apply the batch. Returns the rest of it if another replica applied a part first, else None."""
        try:
            applied = await self._projection.apply(partition.checkpoint, batch)
        except CheckpointMoved:
            partition.checkpoint = self._reached[batch.partition] = await self._moved_on(partition.checkpoint)
            self._progress.followed(batch.partition, partition.checkpoint.position)
            return after(partition.checkpoint.position, batch)
        except LogRefused:
            raise
        except Exception as error:
            if concerns_all(error):
                raise
            return await self._around_defect(partition, batch, error)
        self._note(partition, batch, applied)
        return None

    async def _around_defect(self, partition: _Partition, batch: LogBatch, error: Exception) -> LogBatch | None:
        """Find the entry that can't be applied by halving the batch, and set it aside. Returns as `_apply_once`."""
        if len(batch.events) > 1:
            for half in halves(batch):
                await self._apply_all(partition, half)
            return None
        try:
            applied = await self._projection.set_aside(partition.checkpoint, batch, error)
        except CheckpointMoved:
            return batch  # another replica came first: trying again finds out where it stands
        self._note(partition, batch, applied)
        return None

    def _note(self, partition: _Partition, batch: LogBatch, applied: Applied) -> None:
        partition.checkpoint = self._reached[batch.partition] = applied.checkpoint
        self._progress.moved(
            batch.partition,
            batch.last_position,
            events=len(batch.events),
            journal_rows=applied.journal_rows,
            drifts=applied.drifts,
        )

    async def _moved_on(self, known: Checkpoint) -> Checkpoint:
        """The checkpoint as another replica has moved it. Raises CheckpointMoved if it is not further on."""
        found = (await self._checkpoints.ensure(known.log_epoch, [known.partition]))[known.partition]
        if found.log_epoch != known.log_epoch or found.position <= known.position:
            raise CheckpointMoved(f"partition {known.partition} was at {known.position} and is at {found.position}")
        return found

    async def _watch_heads(self, epoch: str) -> None:
        """Ask periodically where the log stands: lag is the difference, and silence does not mean there is none."""
        while True:
            await asyncio.sleep(self._limits.heads_interval_ms / 1000)
            state = await self._source.describe()
            check_epoch(epoch, state.epoch)
            self._progress.saw(state.heads)
            await self._check_filled()

    async def _check_filled(self) -> None:
        reached = list(self._reached.values())  # of before: what is applied meanwhile fills the read model
        check_filled(reached, is_empty=await self._projection.is_empty())

    async def _pause(self, cause: str, error: Exception) -> None:
        """Wait before the next session; longer, the more sessions have failed since something was applied."""
        self._progress.closed(cause, str(error))
        delay_ms = self._backoff.wait_ms(self._failures, self._jitter())
        self._failures += 1
        reason = error.reason if isinstance(error, Refusal) else cause
        _log.warning("tail_ended", cause=cause, reason=reason, detail=str(error), retry_after_ms=delay_ms)
        await asyncio.sleep(delay_ms / 1000)


async def _at_rest(partitions: Iterable[_Partition]) -> None:
    """Wait until every partition has ended what it applies at the moment."""
    for partition in partitions:
        async with partition.applying:
            pass


async def _drained(partitions: Iterable[_Partition]) -> None:
    """Wait until every batch that was handed to a partition has been applied."""
    for partition in partitions:
        await partition.queue.join()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first of the errors that ended a session: tasks end together, and the first error says why."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
