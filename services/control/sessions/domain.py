"""Sessions, and the refresh tokens that keep them alive.

A refresh token is `ort_<session ulid>.<counter>.<mac>`. The database holds only the counter, which can't be turned
into a token. The rule (ADR 0013): a token with the current counter rotates. A token with the previous counter gets the
*current* token again as long as nobody has used that one, because the answer that carried it may have been lost. Any
other token comes from a thief or a thief's victim, and ends the session. A token counts as used once it was refreshed,
or once the access token that came with it was let in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.control.policy.domain import PERSON_SCOPES, Role, StandingPrincipal, role_scopes
from services.control.tokens.domain import ACCESS_TTL

SESSION_IDLE_TTL = timedelta(days=30)
"""A session that is not refreshed for this long has ended."""
SESSION_MAX_TTL = timedelta(days=180)
"""Maximum lifetime of a session after its person signed in, however often it is refreshed."""
REVOKED_SHOWN_FOR = timedelta(days=30)
_SESSION_PREFIX = "ses_"
_NEVER = -1
_TOKEN = re.compile(r"ort_([0-7][0-9A-HJKMNP-TV-Z]{25})\.(0|[1-9][0-9]{0,17})\.([A-Za-z0-9_-]{43})")


class RevokeReason(StrEnum):
    """Why a session was ended before its time. A stored session may have a reason of a later release."""

    USER_REQUESTED = "user_requested"
    ADMIN_REVOKED = "admin_revoked"
    TOKEN_REPLAY = "token_replay"
    DEVICE_REPLACED = "device_replaced"
    SECURITY_POLICY = "security_policy"


FOR_SAFETY = (RevokeReason.TOKEN_REPLAY, RevokeReason.ADMIN_REVOKED, RevokeReason.SECURITY_POLICY)
"""Reasons after which the session's device is no longer believed to be its person's."""


def session_end(signed_in_at: datetime, refreshed_at: datetime) -> datetime:
    """Return when a session ends by itself if it is not refreshed again, and its person does not sign in again."""
    return min(refreshed_at + SESSION_IDLE_TTL, signed_in_at + SESSION_MAX_TTL)


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in of a person on a device. `counter` is that of the one refresh token that rotates. `used_counter` is the
    newest counter whose access token was let in, which shows that the client has received it."""

    session_id: str
    user_id: str
    org_id: str
    device_id: str
    created_at: datetime
    refreshed_at: datetime
    counter: int = 0
    used_counter: int = _NEVER
    revoked_at: datetime | None = None
    revoke_reason: str | None = None
    signed_in_again_at: datetime | None = None

    @property
    def signed_in_at(self) -> datetime:
        """When the session's person last signed in."""
        return self.signed_in_again_at or self.created_at

    @property
    def expires_at(self) -> datetime:
        """When the session ends by itself, unless it is refreshed before and has not reached its maximum lifetime."""
        return session_end(self.signed_in_at, self.refreshed_at)

    @property
    def access_ttl(self) -> timedelta:
        """Lifetime of the session's present access token, which does not outlive the session."""
        return min(ACCESS_TTL, self.expires_at - self.refreshed_at)

    @property
    def newest_in_use(self) -> bool:
        """Whether the answer that carried the current token is known to have arrived."""
        return self.used_counter >= self.counter

    def is_of(self, user_id: str) -> bool:
        """Whether the session is this person's and was not revoked."""
        return self.revoked_at is None and self.user_id == user_id

    def revoked(self, reason: RevokeReason, now: datetime) -> Session:
        """The session, ended. Ending a session that has ended changes nothing."""
        return self if self.revoked_at else replace(self, revoked_at=now, revoke_reason=reason)


def to_revoke(sessions: Sequence[Session], device_id: str, kept_id: str) -> Sequence[Session]:
    """The sessions to end: those on the device, or on all devices with an empty id, except the one to keep."""
    return [one for one in sessions if device_id in ("", one.device_id) and one.session_id != kept_id]


@dataclass(frozen=True, slots=True)
class StandingSession:
    """A session, and the role that its person has in its org now; None for a person who has left the org."""

    session: Session
    role: Role | None
    blocked: bool = False
    """Whether the session's person is blocked."""

    @property
    def principal(self) -> StandingPrincipal:
        """The person of the session, as a caller of the edge."""
        return StandingPrincipal(
            kind=PrincipalKind.USER,
            subject=self.session.user_id,
            org_id=self.session.org_id,
            scopes=PERSON_SCOPES,
            session_id=self.session.session_id,
            device_id=self.session.device_id,
            standing=role_scopes(self.role),
        )


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token with a valid MAC: control made it."""

    session_id: str
    counter: int


def refresh_token(key: bytes, session_id: str, counter: int) -> str:
    """The one refresh token of a session at a counter; the same arguments always give the same token."""
    return f"ort_{session_id.removeprefix(_SESSION_PREFIX)}.{counter}.{_mac(key, session_id, counter)}"


def parse_refresh_token(key: bytes, text: str) -> RefreshToken:
    """Parse a refresh token. Raises Refusal `invalid_token` for a text that control never made; this says nothing about
    any session."""
    match = _TOKEN.fullmatch(text)
    if match:
        session_id, counter = _SESSION_PREFIX + match[1], int(match[2])
        if hmac.compare_digest(_mac(key, session_id, counter), match[3]):
            return RefreshToken(session_id, counter)
    raise Refusal("invalid_token", "the refresh token is not one of ours; sign in again", field="refresh_token")


def access_token_id(session_id: str, counter: int) -> str:
    """`jti` of the access token that goes with the refresh token of a counter."""
    return f"{session_id}.{counter}"


def used_counter(session_id: str, jti: str) -> int:
    """The counter of an access token of the session, from its `jti`."""
    prefix, _, counter = jti.rpartition(".")
    return int(counter) if prefix == session_id and counter.isascii() and counter.isdigit() else _NEVER


def _mac(key: bytes, session_id: str, counter: int) -> str:
    digest = hmac.digest(key, f"refresh:{session_id}:{counter}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The outcome of a refresh: the session to store, and the catalogue's reason if the refresh is refused."""

    session: Session
    reason: str | None = None
    other_device: bool = False
    """Whether the refresh is refused because another device presented the token."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The effect of a sign-in on the person's sessions on the device: the session that continues, None for a new one,
    and the sessions that end."""

    going_on: Session | None
    ending: Sequence[Session]


def decide_sign_in(of_device: Sequence[Session], presented: RefreshToken | None, now: datetime) -> Entered:
    """Decide which session of the device a sign-in continues: that of the refresh token, if a refresh would be granted.
    A token that a refresh would treat as stolen ends its session for that reason."""
    going_on: Session | None = None
    ending: list[Session] = []
    for session in of_device:
        if presented is None or presented.session_id != session.session_id:
            ending.append(session.revoked(RevokeReason.DEVICE_REPLACED, now))
            continue
        refreshed = decide_refresh(session, presented.counter, session.device_id, now)
        if refreshed.reason:
            ending.append(refreshed.session.revoked(RevokeReason.DEVICE_REPLACED, now))
        else:
            going_on = replace(refreshed.session, signed_in_again_at=now)
    return Entered(going_on, ending)


def decide_refresh(session: Session, counter: int, device_id: str, now: datetime) -> Refreshed:
    """Decide what presenting the token of `counter` from `device_id` does. See the module's docstring."""
    if session.revoked_at:
        replayed = session.revoke_reason == RevokeReason.TOKEN_REPLAY
        return Refreshed(session, "token_replay" if replayed else "token_revoked")
    if now >= session.expires_at:
        return Refreshed(session, "reauth_required")
    same_device = device_id == session.device_id
    # Control made each token that gets here, so one that is ahead of the row was issued before a failover lost the row.
    if same_device and counter >= session.counter:
        return Refreshed(replace(session, counter=counter + 1, refreshed_at=now))
    if same_device and counter == session.counter - 1 and not session.newest_in_use:
        outlived = now >= session.refreshed_at + ACCESS_TTL
        return Refreshed(replace(session, refreshed_at=now) if outlived else session)
    return Refreshed(session.revoked(RevokeReason.TOKEN_REPLAY, now), "token_replay", other_device=not same_device)
