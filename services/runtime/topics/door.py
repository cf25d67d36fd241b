"""The documents of workers' events."""

from __future__ import annotations

from openagents.runtime.v1 import worker_pb2
from services.runtime.topics.domain import WorkerEvent


def encode_worker_event(event: WorkerEvent) -> bytes:
    """The document of an event: always the same bytes for the same, for the message has no map."""
    message = worker_pb2.WorkerEvent(
        worker_id=event.worker_id,
        seq=event.seq,
        status=worker_pb2.WorkerStatus.Value(f"WORKER_STATUS_{event.status.name}"),
        name=event.name,
        adapters=event.adapters,
        max_concurrent_runs=event.max_concurrent_runs,
    )
    message.recorded_time.FromNanoseconds(event.recorded_ns)
    return message.SerializeToString(deterministic=True)
