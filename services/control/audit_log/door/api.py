"""AuditService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import audit_service_pb2 as pb
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
from services.control.calls.app import Call, Handlers, handlers_of


class AuditApi:
    """The methods of AuditService."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def handlers(self) -> Handlers:
        """One handler per method."""
        return handlers_of("AuditService", self.ListAuditEvents, self.ListOwnAuditEvents, self.ReadAuditLog)

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, call: Call) -> Message:
        """Return a page of the org's events."""
        digest = digest_of(request, call.caller.org_id)
        below = below_of(request.page_token, digest)
        page = await self._log.list(call.caller.org_id, filters_of(request), size=request.page_size, below_id=below)
        events = map(event_message, page.events)
        return pb.ListAuditEventsResponse(events=events, next_page_token=next_token(page, digest))

    async def ListOwnAuditEvents(self, request: pb.ListOwnAuditEventsRequest, call: Call) -> Message:
        """Return a page of the events that concern the caller."""
        digest = digest_of(request, call.caller.subject)
        below = below_of(request.page_token, digest)
        page = await self._log.own(call.caller, size=request.page_size, below_id=below)
        events = map(event_message, page.events)
        return pb.ListOwnAuditEventsResponse(events=events, next_page_token=next_token(page, digest))

    async def ReadAuditLog(self, request: pb.ReadAuditLogRequest, call: Call) -> Message:
        """Return a part of the org's chain."""
        part = await self._log.read(call.caller.org_id, request.after_sequence)
        return pb.ReadAuditLogResponse(
            org_id=part.org_id,
            start=head_message(part.start),
            events=sealed_messages(part),
            head=head_message(part.head),
        )
