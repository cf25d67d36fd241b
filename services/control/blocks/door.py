"""BlockService: for operators, on the internal port."""

from __future__ import annotations

from typing import Any

from oa_platform.telemetry.context import current_request_id
from openagents.control.v1 import block_service_pb2 as pb
from openagents.control.v1.block_service_pb2_grpc import BlockServiceServicer
from services.control.audit.domain import Origin
from services.control.blocks.app import Blocks
from services.control.blocks.domain import Subject
from services.control.calls.app import timestamp


class BlockApi(BlockServiceServicer):
    """The methods of BlockService."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def GetSubject(self, request: pb.GetSubjectRequest, context: Any) -> pb.GetSubjectResponse:
        """Return the subject."""
        return pb.GetSubjectResponse(subject=_subject(await self._blocks.get(request.subject)))

    async def BlockSubject(self, request: pb.BlockSubjectRequest, context: Any) -> pb.BlockSubjectResponse:
        """Block the subject."""
        return pb.BlockSubjectResponse(
            subject=_subject(await self._blocks.block(request.subject, Origin.of_operator(current_request_id())))
        )

    async def UnblockSubject(self, request: pb.UnblockSubjectRequest, context: Any) -> pb.UnblockSubjectResponse:
        """Remove the subject's block."""
        return pb.UnblockSubjectResponse(
            subject=_subject(await self._blocks.unblock(request.subject, Origin.of_operator(current_request_id())))
        )


def _subject(subject: Subject) -> pb.Subject:
    return pb.Subject(
        subject=subject.subject,
        name=subject.name,
        org_id=subject.org_id,
        block_time=timestamp(subject.blocked_at) if subject.blocked_at else None,
        live_sessions=subject.live_sessions,
        live_keys=subject.live_keys,
        delete_time=timestamp(subject.deleted_at) if subject.deleted_at else None,
    )
