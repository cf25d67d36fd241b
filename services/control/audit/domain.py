"""The entries that record who did what."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

from oa_base.identity import Principal

OPERATOR = "operator"
"""The actor of an action by an operator of the installation. All operators share one token."""


class Action(StrEnum):
    """Everything that is audited."""

    USER_SET_ASIDE = "user.set_aside"  # by migration 0003 only
    CHALLENGE_STARTED = "challenge.started"
    SIGNED_IN = "session.signed_in"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REVOKED = "session.revoked"
    ORG_SWITCHED = "session.org_switched"
    SYNC_TOKEN_MINTED = "sync_token.minted"
    SERVICE_ACCOUNT_CREATED = "service_account.created"
    SERVICE_ACCOUNT_REVOKED = "service_account.revoked"
    KEY_EXCHANGED = "service_account.key_exchanged"
    ORG_CREATED = "org.created"
    ORG_RENAMED = "org.renamed"
    ORG_DELETED = "org.deleted"
    ORG_RESTORED = "org.restored"
    ORG_ENDED = "org.ended"
    MEMBER_ROLE_SET = "member.role_set"
    MEMBER_REMOVED = "member.removed"
    MEMBER_LEFT = "member.left"
    OWNERSHIP_TRANSFERRED = "member.ownership_transferred"
    INVITATION_CREATED = "invitation.created"
    INVITATION_RESENT = "invitation.resent"
    INVITATION_REVOKED = "invitation.revoked"
    INVITATION_ACCEPTED = "invitation.accepted"
    INVITATION_DECLINED = "invitation.declined"
    KEY_CREATED = "api_key.created"
    KEY_ROTATED = "api_key.rotated"
    KEY_REVOKED = "api_key.revoked"
    BLOCKED = "subject.blocked"
    UNBLOCKED = "subject.unblocked"
    ACCOUNT_DELETED = "account.deleted"
    CREDENTIALS_REFUSED = "credentials.refused"  # one row for many refusals
    CALL_DENIED = "call.denied"
    ROUTE_SET = "route.set"
    ROUTE_DELETED = "route.deleted"
    ROUTES_ROLLED_BACK = "route.rolled_back"
    CANARY_STARTED = "canary.started"
    CANARY_FINISHED = "canary.finished"
    CANARY_ROLLED_BACK = "canary.rolled_back"
    MAINTENANCE_STARTED = "maintenance.started"
    MAINTENANCE_ENDED = "maintenance.ended"
    BYPASS_MADE = "maintenance.bypass_made"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    PROVIDER_STARTED = "provider_sign_in.started"
    PROVIDER_FINISHED = "provider_sign_in.finished"
    IDENTITY_LINKED = "identity.linked"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from: its request id and the network (an address, or an IPv6 /64) of the caller."""

    request_id: str = ""
    network: str = ""

    @classmethod
    def of_operator(cls, request_id: str) -> Origin:
        """The origin of an operator's call. It comes over the internal port: a name stands for the network."""
        return cls(request_id, f"service:{OPERATOR}")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row: who did what to whom, and how it ended. `reason` is empty if the action was allowed."""

    action: Action
    origin: Origin
    actor: str = ""
    org_id: str = ""
    target: str = ""
    reason: str = ""


def address_digest(hmac_key: bytes, email: str) -> str:
    """What stands for an address in the audit trail, whose chain can't lose a row: the same for each mention of the
    address, and to be had only with the key and the address (ADR 0062)."""
    return "adr_" + hmac.digest(hmac_key, f"audit:address:{email}".encode(), hashlib.sha256).hex()[:32]


def by(principal: Principal, action: Action, origin: Origin, target: str = "", reason: str = "") -> AuditEntry:
    """The entry for something that `principal` did or tried."""
    return AuditEntry(action, origin, principal.subject, principal.org_id, target, reason)
