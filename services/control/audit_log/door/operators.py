"""InstallationAuditService: for operators, on the internal port."""

from __future__ import annotations

from typing import Any

from openagents.control.v1 import installation_audit_service_pb2 as pb
from openagents.control.v1.installation_audit_service_pb2_grpc import InstallationAuditServiceServicer
from services.control.audit_log.app.log import AuditLog
from services.control.audit_log.door.messages import (
    below_of,
    digest_of,
    event_message,
    filters_of,
    head_message,
    next_token,
    sealed_messages,
)


class InstallationAuditApi(InstallationAuditServiceServicer):
    """The methods of InstallationAuditService."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def ListInstallationAuditEvents(
        self, request: pb.ListInstallationAuditEventsRequest, context: Any
    ) -> pb.ListInstallationAuditEventsResponse:
        """Return a page of the events of an org, or of those that belong to no org."""
        digest = digest_of(request, request.org_id)
        below = below_of(request.page_token, digest)
        await self._log.require_known(request.org_id)
        page = await self._log.list(request.org_id, filters_of(request), size=request.page_size, below_id=below)
        events = map(event_message, page.events)
        return pb.ListInstallationAuditEventsResponse(events=events, next_page_token=next_token(page, digest))

    async def ReadInstallationAuditLog(
        self, request: pb.ReadInstallationAuditLogRequest, context: Any
    ) -> pb.ReadInstallationAuditLogResponse:
        """Return a part of the chain of an org, or of the events that belong to no org."""
        await self._log.require_known(request.org_id)
        part = await self._log.read(request.org_id, request.after_sequence)
        return pb.ReadInstallationAuditLogResponse(
            org_id=part.org_id,
            start=head_message(part.start),
            events=sealed_messages(part),
            head=head_message(part.head),
        )
