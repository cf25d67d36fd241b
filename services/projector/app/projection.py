"""Applying one batch: the read model, the topics and the checkpoint change in one transaction, or not at all."""

from __future__ import annotations

from dataclasses import replace

from oa_topics.hub import TopicHub
from services.projector.app.ports import Checkpoint, ProjectionStore
from services.projector.app.progress import Progress
from services.projector.app.topics import publish
from services.projector.domain.log import LogBatch
from services.projector.domain.summaries import Codec, plan_batch


class Projection:
    """The run summaries. Batches of different partitions may be applied at the same time."""

    def __init__(self, store: ProjectionStore, codec: Codec, hub: TopicHub, progress: Progress) -> None:
        self._store = store
        self._codec = codec
        self._hub = hub
        self._progress = progress

    async def apply(self, checkpoint: Checkpoint, batch: LogBatch) -> Checkpoint:
        """Apply `batch`, which follows `checkpoint`, and return the new checkpoint.

        Raises CheckpointMoved, LogRefused: then nothing was stored. Raises Refusal when the database went away: then
        it may have been stored, and only the checkpoints know.
        """
        async with self._store.transaction() as transaction:
            await transaction.advance(checkpoint, batch.last_position)
            stored = await transaction.read({event.run_id for event in batch.events})
            plan = plan_batch(stored, batch.events, self._codec.encode)
            await transaction.write(plan.writes)
            await transaction.record(plan.drifts)
            rows = await transaction.append(plan.entries)
        publish(self._hub, rows)
        self._progress.drifts += len(plan.drifts)
        self._progress.journal_rows += len(rows)
        self._progress.moved(batch.partition, batch.last_position, len(batch.events))
        return replace(checkpoint, position=batch.last_position)
