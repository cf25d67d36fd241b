"""AuditService."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_runlog.proof.audit import AuditHead
from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.control.v1 import audit_service_pb2 as pb
from services.control.audit_log.app.log import NEWEST_ID, AuditLog, EventPage
from services.control.audit_log.domain import Filters, Outcome, RecordedEvent
from services.control.calls.app import Call, Handlers, handlers_of, timestamp

_OUTCOMES = {
    pb.AUDIT_OUTCOME_UNSPECIFIED: None,
    pb.AUDIT_OUTCOME_DONE: Outcome.DONE,
    pb.AUDIT_OUTCOME_REFUSED: Outcome.REFUSED,
}
_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items() if outcome}


class AuditApi:
    """The methods of AuditService."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def handlers(self) -> Handlers:
        """One handler a method."""
        return handlers_of("AuditService", self.ListAuditEvents, self.ListOwnAuditEvents, self.ReadAuditLog)

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, call: Call) -> Message:
        """A page of the org's events."""
        digest = _digest(request, call.caller.org_id)
        below = _below(request.page_token, digest)
        page = await self._log.list(call.caller, _filters(request), size=request.page_size, below_id=below)
        return pb.ListAuditEventsResponse(events=map(_event, page.events), next_page_token=_next(page, digest))

    async def ListOwnAuditEvents(self, request: pb.ListOwnAuditEventsRequest, call: Call) -> Message:
        """A page of what concerns the caller."""
        digest = _digest(request, call.caller.subject)
        page = await self._log.own(call.caller, size=request.page_size, below_id=_below(request.page_token, digest))
        return pb.ListOwnAuditEventsResponse(events=map(_event, page.events), next_page_token=_next(page, digest))

    async def ReadAuditLog(self, request: pb.ReadAuditLogRequest, call: Call) -> Message:
        """A part of the org's chain."""
        part = await self._log.read(call.caller, request.after_sequence)
        events = [
            pb.SealedAuditEvent(canonical_json=event.canonical(), chain=head.chain) for event, head in part.events
        ]
        return pb.ReadAuditLogResponse(
            org_id=part.org_id, start=_head(part.start), events=events, head=_head(part.head)
        )


def _filters(request: pb.ListAuditEventsRequest) -> Filters:
    return Filters(
        actor=request.actor,
        action=request.action,
        target=request.target,
        outcome=_OUTCOMES[request.outcome],
        since=_moment(request.since_time, "since_time") if request.HasField("since_time") else None,
        until=_moment(request.until_time, "until_time") if request.HasField("until_time") else None,
    )


def _moment(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        message = "this is no moment between the years 1 and 9999; give one"
        raise Refusal("invalid_value", message, field=field) from None


def _digest(request: pb.ListAuditEventsRequest | pb.ListOwnAuditEventsRequest, whose: str) -> bytes:
    """Of what all pages of a list have in common."""
    query = type(request).FromString(request.SerializeToString())
    query.ClearField("page_size")
    query.ClearField("page_token")
    name = query.DESCRIPTOR.full_name
    return hashlib.sha256(f"{name}\0{whose}\0".encode() + query.SerializeToString(deterministic=True)).digest()


def _below(token: str, digest: bytes) -> int:
    key = decode_page_token(token, digest)
    if not key:
        return NEWEST_ID
    if key.isascii() and key.isdecimal() and len(key) < len(str(NEWEST_ID)):
        return int(key)
    message = "the page token is not one that this query returned; start again without one"
    raise Refusal("invalid_page_token", message, field="page_token")


def _next(page: EventPage, digest: bytes) -> str:
    return encode_page_token(str(page.next_below) if page.next_below else "", digest)


def _head(head: AuditHead) -> pb.AuditHead:
    return pb.AuditHead(sequence=head.sequence, chain=head.chain)


def _event(event: RecordedEvent) -> pb.AuditEvent:
    return pb.AuditEvent(
        sequence=event.sequence,
        org_id=event.org_id,
        occur_time=timestamp(event.occurred_at),
        action=event.action,
        actor=event.actor,
        target=event.target,
        outcome=_NUMBERS[event.outcome],
        reason=event.reason,
        network=event.network,
        request_id=event.request_id,
    )
