"""What a revocation ends: every token that matches it, wherever one is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

ACCOUNT_REVOKED = "account_revoked"
ACCOUNT_BLOCKED = "account_blocked"
ORG_DELETED = "org_deleted"


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends the tokens that match each text that isn't empty. `issued_before` leaves those that came later alone."""

    reason: str
    session_id: str = ""
    subject: str = ""
    org_id: str = ""
    issued_before: datetime | None = None

    @classmethod
    def of_session(cls, session_id: str, reason: str) -> Revocation:
        """A session ends. Its id never comes back."""
        return cls(reason, session_id=session_id)

    @classmethod
    def of_api_key(cls, api_key_id: str, reason: str) -> Revocation:
        """An API key ends, which stands where a session does. Its id never comes back."""
        return cls(reason, session_id=api_key_id)

    @classmethod
    def of_blocked_account(cls, service_account_id: str, now: datetime) -> Revocation:
        """A service account is blocked. What it gets after that is good again."""
        return cls(ACCOUNT_BLOCKED, subject=service_account_id, issued_before=now)

    @classmethod
    def of_service_account(cls, service_account_id: str) -> Revocation:
        """A service account ends. Its id never comes back."""
        return cls(ACCOUNT_REVOKED, subject=service_account_id)

    @classmethod
    def of_member(cls, user_id: str, org_id: str, reason: str, now: datetime) -> Revocation:
        """A person has lost something in an org. What it has there from now on comes with other tokens."""
        return cls(reason, subject=user_id, org_id=org_id, issued_before=now)

    @classmethod
    def of_org(cls, org_id: str, now: datetime) -> Revocation:
        """An org is closed for everybody, and may be opened again."""
        return cls(ORG_DELETED, org_id=org_id, issued_before=now)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A revocation at its place in the order of all: 1, 2, 3, …"""

    position: int
    revoked_at: datetime
    revocation: Revocation
