"""openagents.projection.v1.ReadService, and the documents of summaries."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from oa_base.refusal import Refusal
from oa_platform.auth.identity import current_principal
from oa_runlog import wire as runlog_wire
from oa_runlog.state import RunStatus
from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.common.v1 import cursor_pb2
from openagents.projection.v1 import checkpoint_pb2, read_service_pb2_grpc, run_summary_pb2
from openagents.projection.v1 import read_service_pb2 as pb
from openagents.runtime.v1 import run_pb2
from services.projector.projection.app import CheckpointStore
from services.projector.projection.domain import Checkpoint
from services.projector.summaries.app import Listed, ListedRuns, Reads
from services.projector.summaries.domain import RunSummary


class ReadApi(read_service_pb2_grpc.ReadServiceServicer):
    """Serves ReadService. Requests have been validated and callers authenticated before they arrive here."""

    def __init__(self, reads: Reads, checkpoints: CheckpointStore) -> None:
        self._reads = reads
        self._checkpoints = checkpoints

    async def GetRunSummary(self, request: pb.GetRunSummaryRequest, context: Any) -> pb.GetRunSummaryResponse:
        """One run's summary."""
        summary = await self._reads.summary(current_principal(), request.run_id)
        return pb.GetRunSummaryResponse(summary=summary_to_wire(summary))

    async def ListRunSummaries(self, request: pb.ListRunSummariesRequest, context: Any) -> pb.ListRunSummariesResponse:
        """A page of runs."""
        principal = current_principal()
        which = listed_runs_from_wire(request)
        digest = which.digest(principal)
        after_key = decode_page_token(request.page_token, digest)
        page = await self._reads.summaries(principal, which, request.page_size, after_key)
        return pb.ListRunSummariesResponse(
            summaries=[summary_to_wire(summary) for summary in page.summaries],
            next_page_token=encode_page_token(page.next_key, digest),
        )

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        """How far every projection has come."""
        checkpoints = await self._checkpoints.all()
        return pb.ListCheckpointsResponse(checkpoints=[checkpoint_to_wire(one) for one in checkpoints])


_LISTED = {pb.LISTED_RUNS_OWN: Listed.OWN, pb.LISTED_RUNS_ORG: Listed.ORG}


def listed_runs_from_wire(request: pb.ListRunSummariesRequest) -> ListedRuns:
    """Which runs the request asks for."""
    status = runlog_wire.status_from_wire(request.status) if request.status else None
    return ListedRuns(_LISTED.get(request.runs), status, request.run_id_prefix)


class SummaryCodec:
    """Implements `domain.Codec`. The message has no map, so each value has exactly one deterministic serialization."""

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
    if summary.progress is not None:
        message.progress.CopyFrom(runlog_wire.progress_to_wire(summary.progress))
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
        progress=runlog_wire.progress_from_wire(message.progress) if message.HasField("progress") else None,
    )


def checkpoint_to_wire(checkpoint: Checkpoint) -> checkpoint_pb2.Checkpoint:
    """The message for a checkpoint."""
    applied = cursor_pb2.LogPosition(partition=checkpoint.partition, position=checkpoint.position)
    return checkpoint_pb2.Checkpoint(
        projection=checkpoint.projection, version=checkpoint.version, epoch=checkpoint.log_epoch, applied=applied
    )
