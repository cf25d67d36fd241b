"""The documents of workers' events, and of runs as they stand."""

from __future__ import annotations

from oa_khala.topics import run_events
from oa_runlog import wire
from oa_runlog.state import TOTAL_NAMES
from openagents.runtime.v1 import event_pb2, run_pb2, worker_pb2
from services.runtime.archive.app.archive import Archived
from services.runtime.log.domain.records import RunExcerpt
from services.runtime.topics.domain import WorkerEvent, open_requests


def encode_worker_event(event: WorkerEvent) -> bytes:
    """The document of an event: always the same bytes for the same event, because the message has no map."""
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


def encode_run_snapshot(found: RunExcerpt, archived: Archived | None) -> bytes:
    """The document of a run as it stands; `archived` says where its events are if they have left the log."""
    state = found.run.state
    message = run_pb2.RunSnapshot(
        run=wire.run_to_wire(state, found.run.spec, run_events(state.run_id)),
        totals=run_pb2.RunTotals(**{name: getattr(state.totals, name) for name in TOTAL_NAMES}),
        messages=map(event_pb2.RunEvent.FromString, found.messages),
        output=map(event_pb2.RunEvent.FromString, found.output),
        open_requests=map(event_pb2.RunEvent.FromString, open_requests(state.status, found.requests)),
        steps=found.steps,
    )
    if found.progress is not None:
        message.progress.CopyFrom(event_pb2.RunEvent.FromString(found.progress).body.progress_reported)
    if archived is not None:
        message.archived.sha256, message.archived.size_bytes = archived.sha256, archived.bytes
    return message.SerializeToString(deterministic=True)
