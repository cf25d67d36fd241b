"""The tail: keeps the read model up with runtime's log.

One *session* is: ask where the log stands, read the checkpoints, open the stream after them, apply what comes, one lane
for each partition. Whatever goes wrong ends the session, and the next one starts from the checkpoints again: they move
only in the transaction that stores what they stand for, so no end of a session, not even SIGKILL, loses or repeats an
entry. A log that is not what a log must be (`LogRefused`) halts the tail instead.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from services.projector.app.ports import Checkpoint, CheckpointMoved, LogSource, LogState, ProjectionStore
from services.projector.app.progress import Progress
from services.projector.app.projection import Projection
from services.projector.domain.log import LogBatch, LogRefused, after, joined


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """Bounds of the tail; `services.projector.config` documents them and sets their defaults."""

    batch_events: int = 2000
    lane_batches: int = 16
    backoff_min_ms: int = 100
    backoff_max_ms: int = 5000
    heads_interval_ms: int = 1000


class Report:
    """What the tail tells whoever keeps the logs; the base class keeps none."""

    def session_opened(self, state: LogState, applied: Mapping[int, int]) -> None:
        """A session begins at `applied`."""

    def session_ended(self, cause: str, error: Exception, retry_after_ms: int) -> None:
        """A session ended; the next one begins after the delay."""

    def halted(self, refused: LogRefused) -> None:
        """The alarm: nothing is applied any more until a person has looked and the process is restarted."""


@dataclass
class _Lane:
    """One partition: the batches that have come and are not applied yet."""

    checkpoint: Checkpoint
    queue: asyncio.Queue[LogBatch]
    limit_events: int
    progress: Progress = field(repr=False)

    async def next_batch(self) -> tuple[LogBatch, int]:
        """What comes next, as much of it as one transaction takes, and how many batches of the queue are in it.

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
    """Runs sessions until cancelled or halted."""

    def __init__(
        self,
        source: LogSource,
        store: ProjectionStore,
        projection: Projection,
        progress: Progress,
        *,
        limits: TailLimits,
        report: Report | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._store = store
        self._projection = projection
        self._progress = progress
        self._limits = limits
        self._backoff = Backoff(limits.backoff_min_ms, limits.backoff_max_ms)
        self._report = report or Report()
        self._jitter = jitter
        self._failures = 0

    async def run(self) -> None:
        """Sessions with backoff between them. Returns when the log was refused; see `Progress.halted`."""
        while True:
            try:
                await self._session()
            except* LogRefused as group:
                refused = _first(group)
                assert isinstance(refused, LogRefused)
                self._progress.halted = refused
                self._progress.closed("refused", str(refused))
            except* CheckpointMoved as group:
                await self._pause("checkpoint_moved", _first(group))
            except* Refusal as group:
                refusal = _first(group)
                assert isinstance(refusal, Refusal)
                await self._pause(refusal.reason, refusal)
            if self._progress.halted is not None:
                self._report.halted(self._progress.halted)
                return

    async def _session(self) -> None:
        first = await self._source.describe()
        checkpoints = await self._store.checkpoints(first.epoch, first.heads.keys())
        # Asked again: another replica may have applied what was committed after the first answer.
        state = await self._source.describe()
        check_lineage(state, checkpoints)
        applied = {partition: checkpoint.position for partition, checkpoint in checkpoints.items()}
        lanes = {partition: self._lane(checkpoint) for partition, checkpoint in checkpoints.items()}
        self._progress.opened(applied, state.heads)
        self._report.session_opened(state, applied)
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes.values():
                tasks.create_task(self._apply(lane))
            tasks.create_task(self._watch_heads(state.epoch))
            tasks.create_task(self._read(state.epoch, applied, lanes))

    def _lane(self, checkpoint: Checkpoint) -> _Lane:
        queue: asyncio.Queue[LogBatch] = asyncio.Queue(self._limits.lane_batches)
        return _Lane(checkpoint, queue, self._limits.batch_events, self._progress)

    async def _read(self, epoch: str, applied: Mapping[int, int], lanes: Mapping[int, _Lane]) -> None:
        """Hand what comes to its lane; a full lane holds the stream back, and so runtime.

        What has come is applied even when the stream breaks: a network that cuts every session short would otherwise
        keep the projection from ever moving.
        """
        try:
            async for batch in self._source.tail(epoch, applied):
                lane = lanes.get(batch.partition)
                if lane is None:
                    raise LogRefused("hole", f"partition {batch.partition} came and was not asked for")
                await lane.queue.put(batch)
        except Refusal:
            await _drained(lanes.values())
            raise
        await _drained(lanes.values())
        raise Refusal("unavailable", "runtime ended the stream")

    async def _apply(self, lane: _Lane) -> None:
        while True:
            batch, taken = await lane.next_batch()
            lane.checkpoint = await self._projection.apply(lane.checkpoint, batch)
            self._failures = 0
            for _ in range(taken):
                lane.queue.task_done()

    async def _watch_heads(self, epoch: str) -> None:
        """Ask now and then where the log stands: lag is the difference, and silence is not a sign of none."""
        while True:
            await asyncio.sleep(self._limits.heads_interval_ms / 1000)
            state = await self._source.describe()
            check_epoch(epoch, state.epoch)
            self._progress.saw(state.heads)

    async def _pause(self, cause: str, error: Exception) -> None:
        """Wait for the next session, the longer the more have failed since something was applied."""
        if self._progress.halted is not None:
            return
        self._progress.closed(cause, str(error))
        delay_ms = self._backoff.wait_ms(self._failures, self._jitter())
        self._failures += 1
        self._report.session_ended(cause, error, delay_ms)
        await asyncio.sleep(delay_ms / 1000)


def check_lineage(state: LogState, checkpoints: Mapping[int, Checkpoint]) -> None:
    """The checkpoints must count in this log, and within it. Raises LogRefused(epoch_changed | rewound)."""
    for partition, checkpoint in checkpoints.items():
        check_epoch(checkpoint.log_epoch, state.epoch)
        if checkpoint.position > state.heads[partition]:
            head = state.heads[partition]
            message = f"partition {partition}: {checkpoint.position} entries were applied, the log has {head}"
            raise LogRefused("rewound", message)


def check_epoch(expected: str, found: str) -> None:
    """Raises LogRefused(epoch_changed)."""
    if expected != found:
        raise LogRefused("epoch_changed", f"the log has epoch {found}; what was applied came from {expected}")


async def _drained(lanes: Iterable[_Lane]) -> None:
    """Wait until every batch that was handed to a lane has been applied."""
    for lane in lanes:
        await lane.queue.join()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """One of the errors that ended a session: they end together, and the first says why."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
