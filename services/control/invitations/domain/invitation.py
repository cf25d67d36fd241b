"""Invitations: when one is open, who may answer it, and when its mail may be sent again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.refusal import Refusal
from services.control.invitations.limits import (
    INVITATION_TTL,
    MAX_MAILS,
    MAX_OPEN,
    MAX_PER_HOUR,
    MAX_TO_ADDRESS_BY_ONE_PER_DAY,
    MAX_TO_ADDRESS_PER_DAY,
    RESEND_AFTER,
)
from services.control.members.domain import Member, may_give
from services.control.policy.domain import Role, Scope, role_scopes

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class Ended(StrEnum):
    """Why an invitation ended before it expired. A stored invitation may have a reason of a later release."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    REVOKED = "revoked"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Invitation:
    """An offer to an address to become a member of an org. `mails` counts the mails that were sent for it."""

    invitation_id: str
    org_id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    sent_at: datetime
    expires_at: datetime
    mails: int = 1
    ended: str | None = None

    def is_open(self, now: datetime) -> bool:
        """Whether it can still be accepted."""
        return self.ended is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Shown:
    """An invitation as people see it. `inviter_email` is empty once the inviter is no longer a member."""

    invitation: Invitation
    org_name: str
    inviter_email: str


@dataclass(frozen=True, slots=True)
class Made:
    """Numbers of invitations: open ones of the org, those by the org in an hour, those to the address in a day, and of
    these the ones by whoever makes another one now."""

    open: int
    of_org_in_hour: int
    to_address_in_day: int
    to_address_by_one_in_day: int


def new_invitation(
    invitation_id: str, org_id: str, email: str, role: Role, invited_by: str, now: datetime
) -> Invitation:
    """An invitation whose first mail is sent now."""
    return Invitation(invitation_id, org_id, email, role, invited_by, now, now, now + INVITATION_TTL)


def require_few_open(made: Made) -> None:
    """Check that one more invitation may be open. Raises Refusal `limit_reached`."""
    if made.open >= MAX_OPEN:
        raise Refusal("limit_reached", f"the org has {MAX_OPEN} open invitations; revoke those that nobody needs")


def require_room(made: Made) -> None:
    """Check that one more invitation may be made. Raises Refusal `limit_reached`, `rate_limited`."""
    require_few_open(made)
    if made.of_org_in_hour >= MAX_PER_HOUR:
        raise _too_often(f"the org made {MAX_PER_HOUR} invitations within an hour; wait until it is over", _HOUR_MS)
    if made.to_address_in_day >= MAX_TO_ADDRESS_PER_DAY:
        raise _too_often("the address was invited too often within a day; invite it tomorrow", _DAY_MS)
    if made.to_address_by_one_in_day >= MAX_TO_ADDRESS_BY_ONE_PER_DAY:
        message = f"you invited the address {MAX_TO_ADDRESS_BY_ONE_PER_DAY} times within a day; invite it tomorrow"
        raise _too_often(message, _DAY_MS)


def resent(invitation: Invitation, resent_by: str, now: datetime) -> Invitation:
    """The invitation with one more mail, by the person who sends it: the one who invited first may no longer invite.

    Raises Refusal `not_found`, `limit_reached`, `rate_limited`.
    """
    if invitation.ended is not None:
        raise no_such_invitation()
    if invitation.mails >= MAX_MAILS:
        raise Refusal("limit_reached", f"{MAX_MAILS} mails were sent for this invitation; make another one")
    wait = invitation.sent_at + RESEND_AFTER - now
    if wait > timedelta(0):
        wait_ms = -(-wait // timedelta(milliseconds=1))
        raise _too_often("the mail was sent a moment ago; wait before sending it again", wait_ms)
    return replace(
        invitation, invited_by=resent_by, sent_at=now, expires_at=now + INVITATION_TTL, mails=invitation.mails + 1
    )


def require_answerable(invitation: Invitation | None, email: str, now: datetime) -> Invitation:
    """The invitation, if a person with this address may answer it now. Raises Refusal `not_found`."""
    if invitation is None or not email or invitation.email != email or not invitation.is_open(now):
        raise no_such_invitation()
    return invitation


def require_inviter(inviter: Member | None, invited_as: Role) -> None:
    """Check that an inviter (None: has left the org) may still invite so. Raises Refusal `not_found`."""
    if inviter is None or inviter.blocked:
        raise no_such_invitation()
    if Scope.MEMBERS_WRITE not in role_scopes(inviter.role) or not may_give(inviter.role, invited_as):
        raise no_such_invitation()


def no_such_invitation() -> Refusal:
    """The refusal for an invitation that isn't the caller's or isn't open, whether it exists or not."""
    message = "there is no such open invitation; list those that there are"
    return Refusal("not_found", message, field="invitation_id")


def _too_often(message: str, wait_ms: int) -> Refusal:
    return Refusal("rate_limited", message, retry_after_ms=wait_ms)
