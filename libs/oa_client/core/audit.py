"""The audit log as commands request and return it: plain values, and the mapping to the contracts' messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oa_client.core.models import JsonDocument
from oa_client.core.schedules import timestamp
from oa_client.core.wire import document
from oa_runlog.proof.audit import AuditHead
from openagents.control.v1 import audit_service_pb2 as pb
from openagents.control.v1 import installation_audit_service_pb2 as installation_pb

OUTCOMES = tuple(name.removeprefix("AUDIT_OUTCOME_").lower() for name in pb.AuditOutcome.keys()[1:])
"""How an action can end."""


@dataclass(frozen=True)
class AuditEvent:
    """An event. `sequence` is 0 until it has its place in the log; `time` is RFC 3339; `outcome` one of OUTCOMES."""

    sequence: int
    time: str
    action: str
    actor: str
    target: str
    outcome: str
    reason: str
    network: str
    document: JsonDocument


@dataclass(frozen=True)
class AuditPage:
    """Events, newest first; `next_page_token` is empty on the last page."""

    events: tuple[AuditEvent, ...]
    next_page_token: str


@dataclass(frozen=True)
class AuditPart:
    """A part of an org's chain: events in canonical form from `start` on, each with the chain value after it. `head` is
    the end of the whole chain."""

    org_id: str
    start: AuditHead
    events: tuple[tuple[bytes, bytes], ...]
    head: AuditHead


@dataclass(frozen=True)
class AuditFilters:
    """Selects events. A filter that is empty or None matches all events."""

    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    since: datetime | None = None
    until: datetime | None = None


def list_request(filters: AuditFilters, page_size: int, page_token: str) -> pb.ListAuditEventsRequest:
    """Return the request for a page."""
    outcome = f"AUDIT_OUTCOME_{filters.outcome.upper() or 'UNSPECIFIED'}"
    return pb.ListAuditEventsRequest(
        page_size=page_size,
        page_token=page_token,
        actor=filters.actor,
        action=filters.action,
        target=filters.target,
        outcome=pb.AuditOutcome.Value(outcome),
        since_time=timestamp(filters.since) if filters.since else None,
        until_time=timestamp(filters.until) if filters.until else None,
    )


def installation_request(
    org_id: str, filters: AuditFilters, page_size: int, page_token: str
) -> installation_pb.ListInstallationAuditEventsRequest:
    """Return the request to an installation for a page; without an org, for the events that belong to none."""
    request = list_request(filters, page_size, page_token)
    return installation_pb.ListInstallationAuditEventsRequest(
        org_id=org_id,
        page_size=page_size,
        page_token=page_token,
        actor=request.actor,
        action=request.action,
        target=request.target,
        outcome=request.outcome,
        since_time=request.since_time if request.HasField("since_time") else None,
        until_time=request.until_time if request.HasField("until_time") else None,
    )


def page(
    answer: pb.ListAuditEventsResponse
    | pb.ListOwnAuditEventsResponse
    | installation_pb.ListInstallationAuditEventsResponse,
) -> AuditPage:
    """A page of a list."""
    return AuditPage(tuple(map(_event, answer.events)), answer.next_page_token)


def part(answer: pb.ReadAuditLogResponse | installation_pb.ReadInstallationAuditLogResponse) -> AuditPart:
    """A part of a chain."""
    events = tuple((event.canonical_json, event.chain) for event in answer.events)
    return AuditPart(answer.org_id, _head(answer.start), events, _head(answer.head))


def _head(head: pb.AuditHead) -> AuditHead:
    return AuditHead(head.sequence, head.chain)


def _event(event: pb.AuditEvent) -> AuditEvent:
    known = event.outcome in pb.AuditOutcome.values()
    name = pb.AuditOutcome.Name(event.outcome) if known else str(event.outcome)
    return AuditEvent(
        sequence=event.sequence,
        time=event.occur_time.ToJsonString() if event.HasField("occur_time") else "",
        action=event.action,
        actor=event.actor,
        target=event.target,
        outcome=name.removeprefix("AUDIT_OUTCOME_").lower(),
        reason=event.reason,
        network=event.network,
        document=document(event),
    )
