"""openagents.projection.v1.ReadService."""

from __future__ import annotations

from typing import Any

from oa_platform.auth.identity import current_principal
from oa_runlog.wire import status_from_wire
from openagents.projection.v1 import read_service_pb2 as pb
from openagents.projection.v1 import read_service_pb2_grpc
from services.projector.app.reads import Reads, list_digest
from services.projector.grpc_api.paging import decode_page_token, encode_page_token
from services.projector.grpc_api.wire import checkpoint_to_wire, summary_to_wire


class ReadService(read_service_pb2_grpc.ReadServiceServicer):
    """Requests have been validated and callers authenticated before they come here."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def GetRunSummary(self, request: pb.GetRunSummaryRequest, context: Any) -> pb.GetRunSummaryResponse:
        """One run's summary."""
        summary = await self._reads.summary(current_principal(), request.run_id)
        return pb.GetRunSummaryResponse(summary=summary_to_wire(summary))

    async def ListRunSummaries(self, request: pb.ListRunSummariesRequest, context: Any) -> pb.ListRunSummariesResponse:
        """A page of the caller's runs."""
        principal = current_principal()
        status = status_from_wire(request.status) if request.status else None
        digest = list_digest(principal, status)
        after_key = decode_page_token(request.page_token, digest)
        page = await self._reads.summaries(principal, status, request.page_size, after_key)
        return pb.ListRunSummariesResponse(
            summaries=[summary_to_wire(summary) for summary in page.summaries],
            next_page_token=encode_page_token(page.next_key, digest),
        )

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        """How far every projection has come."""
        checkpoints = await self._reads.checkpoints()
        return pb.ListCheckpointsResponse(checkpoints=[checkpoint_to_wire(one) for one in checkpoints])
