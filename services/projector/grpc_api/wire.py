"""Summaries, checkpoints and log batches <-> messages."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from oa_base.refusal import Refusal
from oa_runlog import wire as runlog_wire
from oa_runlog.state import RunStatus
from openagents.common.v1 import cursor_pb2
from openagents.projection.v1 import checkpoint_pb2, run_summary_pb2
from openagents.runtime.v1 import log_service_pb2, run_pb2
from services.projector.app.ports import Checkpoint
from services.projector.domain.log import LogBatch, LogRefused
from services.projector.domain.run_summary import RunSummary


class SummaryCodec:
    """`domain.summaries.Codec`. The message has no map, so its deterministic serialization is one for each value."""

    def encode(self, summary: RunSummary) -> bytes:
        """The document of a summary."""
        return summary_to_wire(summary).SerializeToString(deterministic=True)

    def decode(self, document: bytes) -> RunSummary:
        """The summary in a document of ours."""
        message = run_summary_pb2.RunSummary()
        try:
            message.ParseFromString(document)
            return summary_from_wire(message)
        except (DecodeError, Refusal) as error:
            raise ValueError(f"a stored summary can't be read: {error}") from error


def status_to_wire(status: RunStatus) -> run_pb2.RunStatus.ValueType:
    """The number of a status."""
    return run_pb2.RunStatus.Value(f"RUN_STATUS_{status.name}")


def summary_to_wire(summary: RunSummary) -> run_summary_pb2.RunSummary:
    """The message for a summary."""
    message = run_summary_pb2.RunSummary(
        run_id=summary.run_id,
        user_id=summary.user_id,
        org_id=summary.org_id,
        title=summary.title,
        adapter=summary.adapter,
        status=status_to_wire(summary.status),
        latest_seq=summary.latest_seq,
        worker_id=summary.worker_id,
        attempt=summary.attempt,
        text_bytes=summary.text_bytes,
        tool_calls=summary.tool_calls,
        total_tokens=summary.total_tokens,
        thread_id=summary.thread_id,
    )
    message.create_time.FromNanoseconds(summary.create_ns)
    if summary.start_ns is not None:
        message.start_time.FromNanoseconds(summary.start_ns)
    if summary.finish_ns is not None:
        message.finish_time.FromNanoseconds(summary.finish_ns)
    if summary.finish is not None:
        message.finish.CopyFrom(runlog_wire.finish_to_wire(summary.finish))
    return message


def summary_from_wire(message: run_summary_pb2.RunSummary) -> RunSummary:
    """The summary in a message. Raises Refusal."""
    return RunSummary(
        run_id=message.run_id,
        user_id=message.user_id,
        org_id=message.org_id,
        title=message.title,
        adapter=message.adapter,
        thread_id=message.thread_id,
        status=runlog_wire.status_from_wire(message.status),
        latest_seq=message.latest_seq,
        create_ns=message.create_time.ToNanoseconds(),
        start_ns=message.start_time.ToNanoseconds() if message.HasField("start_time") else None,
        finish_ns=message.finish_time.ToNanoseconds() if message.HasField("finish_time") else None,
        finish=runlog_wire.finish_from_wire(message.finish) if message.HasField("finish") else None,
        worker_id=message.worker_id,
        attempt=message.attempt,
        text_bytes=message.text_bytes,
        tool_calls=message.tool_calls,
        total_tokens=message.total_tokens,
    )


def checkpoint_to_wire(checkpoint: Checkpoint) -> checkpoint_pb2.Checkpoint:
    """The message for a checkpoint."""
    applied = cursor_pb2.LogPosition(partition=checkpoint.partition, position=checkpoint.position)
    return checkpoint_pb2.Checkpoint(
        projection=checkpoint.projection, version=checkpoint.version, epoch=checkpoint.log_epoch, applied=applied
    )


def batch_from_wire(message: log_service_pb2.TailLogResponse) -> LogBatch | None:
    """The entries in a message, None when it holds none. Raises LogRefused(undecodable)."""
    if not message.events:
        return None
    if message.first_position == 0:
        raise LogRefused("undecodable", f"partition {message.partition}: entries at position 0")
    try:
        events = tuple(runlog_wire.decode_event(data) for data in message.events)
    except Refusal as error:
        where = f"partition {message.partition} from position {message.first_position}"
        raise LogRefused("undecodable", f"{where}: {error}") from error
    return LogBatch(message.partition, message.first_position, events)
