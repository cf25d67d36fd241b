"""Converts the audit log's values to and from messages, for both services."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_runlog.proof.audit import AuditHead
from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.control.v1 import audit_service_pb2 as pb
from openagents.control.v1.installation_audit_service_pb2 import ListInstallationAuditEventsRequest
from services.control.audit_log.app.log import NEWEST_ID, ChainPart, EventPage
from services.control.audit_log.domain import Filters, Outcome, RecordedEvent
from services.control.calls.app import timestamp

ListRequest = pb.ListAuditEventsRequest | ListInstallationAuditEventsRequest
"""A request for a page of a log."""
_OUTCOMES = {
    pb.AUDIT_OUTCOME_UNSPECIFIED: None,
    pb.AUDIT_OUTCOME_DONE: Outcome.DONE,
    pb.AUDIT_OUTCOME_REFUSED: Outcome.REFUSED,
}
_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items() if outcome}


def filters_of(request: ListRequest) -> Filters:
    """The filters of a request. Raises Refusal `invalid_value`."""
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


def digest_of(request: ListRequest | pb.ListOwnAuditEventsRequest, whose: str) -> bytes:
    """A digest of the parts of a request that all pages of a list have in common."""
    query = type(request).FromString(request.SerializeToString())
    query.ClearField("page_size")
    query.ClearField("page_token")
    name = query.DESCRIPTOR.full_name
    return hashlib.sha256(f"{name}\0{whose}\0".encode() + query.SerializeToString(deterministic=True)).digest()


def below_of(token: str, digest: bytes) -> int:
    """The row below which a page begins. Raises Refusal `invalid_page_token`."""
    key = decode_page_token(token, digest)
    if not key:
        return NEWEST_ID
    if key.isascii() and key.isdecimal() and len(key) < len(str(NEWEST_ID)):
        return int(key)
    message = "the page token is not one that this query returned; start again without one"
    raise Refusal("invalid_page_token", message, field="page_token")


def next_token(page: EventPage, digest: bytes) -> str:
    """The token with which to request the next page; empty if there is none."""
    return encode_page_token(str(page.next_below) if page.next_below else "", digest)


def head_message(head: AuditHead) -> pb.AuditHead:
    """A place in a chain."""
    return pb.AuditHead(sequence=head.sequence, chain=head.chain)


def event_message(event: RecordedEvent) -> pb.AuditEvent:
    """An event."""
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


def sealed_messages(part: ChainPart) -> list[pb.SealedAuditEvent]:
    """The events of a part of a chain."""
    return [pb.SealedAuditEvent(canonical_json=event.canonical(), chain=head.chain) for event, head in part.events]
