"""What a revocation ends: every token that matches it, wherever one is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

ACCOUNT_REVOKED = "account_revoked"
ACCOUNT_BLOCKED = "account_blocked"
ACCOUNT_UNBLOCKED = "account_unblocked"
ACCOUNT_DELETED = "account_deleted"
ORG_DELETED = "org_deleted"
ORG_RESTORED = "org_restored"
_NO_TOKEN = datetime(1970, 1, 1, tzinfo=UTC)
"""Before the first token."""


class PlaceChange(StrEnum):
    """What becomes of a place: of who may start runs in an org."""

    NONE = ""
    LOST = "lost"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends the tokens that match each text that isn't empty. `issued_before` leaves those that came later alone.

    `place_change` says what it means for what needs no token, such as a schedule.
    """

    reason: str
    session_id: str = ""
    subject: str = ""
    org_id: str = ""
    issued_before: datetime | None = None
    place_change: PlaceChange = PlaceChange.NONE

    @classmethod
    def of_session(cls, session_id: str, reason: str) -> Revocation:
        """A session ends. Its id never comes back."""
        return cls(reason, session_id=session_id)

    @classmethod
    def of_api_key(cls, api_key_id: str, reason: str) -> Revocation:
        """An API key ends, which stands where a session does. Its id never comes back."""
        return cls(reason, session_id=api_key_id)

    @classmethod
    def of_blocked(cls, subject: str, now: datetime) -> Revocation:
        """A person or a service account is blocked. What it gets after that is good again."""
        return cls(ACCOUNT_BLOCKED, subject=subject, issued_before=now, place_change=PlaceChange.LOST)

    @classmethod
    def of_unblocked(cls, subject: str) -> Revocation:
        """A block is taken away. It ends no token."""
        return cls(ACCOUNT_UNBLOCKED, subject=subject, issued_before=_NO_TOKEN, place_change=PlaceChange.BACK)

    @classmethod
    def of_deleted_account(cls, user_id: str) -> Revocation:
        """A person's account is deleted. Its id never comes back."""
        return cls(ACCOUNT_DELETED, subject=user_id, place_change=PlaceChange.LOST)

    @classmethod
    def of_service_account(cls, service_account_id: str) -> Revocation:
        """A service account ends. Its id never comes back."""
        return cls(ACCOUNT_REVOKED, subject=service_account_id)

    @classmethod
    def of_member(
        cls, user_id: str, org_id: str, reason: str, now: datetime, place_change: PlaceChange = PlaceChange.NONE
    ) -> Revocation:
        """A person has lost something in an org. What it has there from now on comes with other tokens."""
        return cls(reason, subject=user_id, org_id=org_id, issued_before=now, place_change=place_change)

    @classmethod
    def of_place(cls, user_id: str, org_id: str, reason: str) -> Revocation:
        """A person may start runs in an org that may not have been allowed to before. It ends no token."""
        return cls(reason, subject=user_id, org_id=org_id, issued_before=_NO_TOKEN, place_change=PlaceChange.BACK)

    @classmethod
    def of_org(cls, org_id: str, now: datetime) -> Revocation:
        """An org is closed for everybody, and may be opened again."""
        return cls(ORG_DELETED, org_id=org_id, issued_before=now, place_change=PlaceChange.LOST)

    @classmethod
    def of_restored_org(cls, org_id: str) -> Revocation:
        """A deleted org is open again. It ends no token."""
        return cls(ORG_RESTORED, org_id=org_id, issued_before=_NO_TOKEN, place_change=PlaceChange.BACK)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A revocation at its place in the order of all: 1, 2, 3, …"""

    position: int
    revoked_at: datetime
    revocation: Revocation
