"""Recorded events, their canonical form, and their places in the chains of their orgs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.proof.audit import AuditHead, audit_start
from services.control.audit.domain import Action

DONE_FOR_A_REASON = frozenset(
    action.value
    for action in (
        *(Action.SESSION_REVOKED, Action.USER_SET_ASIDE, Action.KEY_REVOKED, Action.CANARY_ROLLED_BACK),
        *(Action.MEMBER_ROLE_SET, Action.INVITATION_CREATED, Action.INVITATION_ACCEPTED, Action.SIGNING_KEY_ROTATED),
        *(Action.KEY_ROTATED, Action.ORG_DELETED, Action.MEMBER_LEFT, Action.MEMBER_REMOVED),
    )
)
"""Actions whose `reason` says why they were done, or with which role. For all others it says why they were refused."""


class Outcome(StrEnum):
    """How an action ended."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A row of the audit trail. `sequence` is 0 until the event has a place in the chain."""

    audit_id: int
    occurred_at: datetime
    action: str
    reason: str
    actor: str
    org_id: str
    target: str
    network: str
    request_id: str
    sequence: int = 0

    @property
    def outcome(self) -> Outcome:
        """How the action ended."""
        return Outcome.REFUSED if self.reason and self.action not in DONE_FOR_A_REASON else Outcome.DONE

    def canonical(self) -> bytes:
        """The canonical form, from which the chain is computed."""
        moment = self.occurred_at.astimezone(UTC)
        members: dict[str, Canonical] = {
            "sequence": self.sequence,
            "org_id": self.org_id,
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}Z",
            "action": self.action,
            "reason": self.reason,
            "actor": self.actor,
            "target": self.target,
            "network": self.network,
            "request_id": self.request_id,
        }
        return canonical_json(members)

    def seen_by(self, subject: str) -> RecordedEvent:
        """The event as `subject` sees it: without the details that concern only its actor, if that is somebody else."""
        return self if self.actor == subject else replace(self, network="", request_id="")


@dataclass(frozen=True, slots=True)
class Seal:
    """An event's place in its chain, and the chain value after it."""

    org_id: str
    audit_id: int
    head: AuditHead


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects events of an org. A filter that is empty or None lets all through. `address` is the digest of the address
    that `target` is, if it is one: events have either."""

    actor: str = ""
    action: str = ""
    target: str = ""
    address: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


def seals_of(events: Sequence[RecordedEvent], heads: Mapping[str, AuditHead]) -> list[Seal]:
    """The seals of events in this order. `heads` contains the current head of each org that has one."""
    now = dict(heads)
    seals = []
    for event in events:
        head = now.get(event.org_id) or audit_start(event.org_id)
        head = head.after(replace(event, sequence=head.sequence + 1).canonical())
        now[event.org_id] = head
        seals.append(Seal(event.org_id, event.audit_id, head))
    return seals
