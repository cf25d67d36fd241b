"""A person's own account: keeping a session alive, seeing and ending sessions, orgs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.control.app.outcome import settled
from services.control.app.ports import Transaction, World
from services.control.app.tokens import SessionTokens, session_tokens
from services.control.domain.audit import Action, AuditEntry, Origin, by
from services.control.domain.org import Membership
from services.control.domain.principal import StandingPrincipal
from services.control.domain.session import (
    REVOKED_SHOWN_FOR,
    RefreshToken,
    RevokeReason,
    Session,
    decide_refresh,
    parse_refresh_token,
)

_REFRESH_MESSAGES = {
    "token_replay": "An old refresh token was used again, so the session was ended; sign in again.",
    "token_revoked": "The session was ended; sign in again.",
    "reauth_required": "The session was not used for too long; sign in again.",
}


@dataclass(frozen=True)
class CallerView:
    """Who the caller is."""

    principal: StandingPrincipal
    email: str


class Account:
    """What concerns only the caller."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def refresh(self, token: str, device_id: str, origin: Origin) -> SessionTokens:
        """New tokens for a refresh token. Raises Refusal `invalid_token`, `token_replay`, `token_revoked`,
        `reauth_required`."""
        presented = parse_refresh_token(self._world.hmac_key, token)
        async with self._world.store.transaction() as tx:
            outcome = await self._refresh(tx, presented, device_id, origin)
        return settled(outcome)

    async def _refresh(
        self, tx: Transaction, presented: RefreshToken, device_id: str, origin: Origin
    ) -> SessionTokens | Refusal:
        now = self._world.clock.now()
        before = await tx.sessions.locked(presented.session_id)
        if before is None:
            return Refusal("token_revoked", _REFRESH_MESSAGES["token_revoked"])
        refreshed = decide_refresh(before, presented.counter, device_id, now)
        if refreshed.session is not before:
            await tx.sessions.save(refreshed.session)
            action = Action.SESSION_REVOKED if refreshed.reason else Action.SESSION_REFRESHED
            target = before.session_id
            entry = AuditEntry(action, origin, before.user_id, before.org_id, target, refreshed.reason or "")
            await tx.audit.add(entry, now)
        if refreshed.reason:
            return Refusal(refreshed.reason, _REFRESH_MESSAGES[refreshed.reason])
        standing = await tx.sessions.standing(before.session_id)
        role = standing[1] if standing else None
        return session_tokens(self._world, refreshed.session, role)

    async def caller(self, principal: StandingPrincipal) -> CallerView:
        """Who the caller is."""
        if principal.kind is not PrincipalKind.USER:
            return CallerView(principal, "")
        async with self._world.store.reading() as tx:
            return CallerView(principal, await tx.people.email(principal.subject))

    async def orgs(self, principal: StandingPrincipal) -> Sequence[Membership]:
        """The caller's orgs, the own one first. A service account is no member of any."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        async with self._world.store.reading() as tx:
            return await tx.people.memberships(principal.subject)

    async def sessions(self, principal: StandingPrincipal) -> Sequence[Session]:
        """The caller's sessions, the newest first."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        since = self._world.clock.now() - REVOKED_SHOWN_FOR
        async with self._world.store.reading() as tx:
            return await tx.sessions.listed(principal.subject, since)

    async def revoke_session(self, principal: StandingPrincipal, session_id: str, origin: Origin) -> None:
        """End a session of the caller's, its own when `session_id` is empty. Somebody else's is `not_found`."""
        target = session_id or principal.session_id
        async with self._world.store.transaction() as tx:
            session = await tx.sessions.locked(target) if target else None
            if session is None or session.user_id != principal.subject:
                raise Refusal("not_found", "There is no such session of yours.", field="session_id")
            if session.revoked_at:
                return
            now = self._world.clock.now()
            reason = RevokeReason.USER_REQUESTED
            await tx.sessions.save(session.revoked(reason, now))
            await tx.audit.add(by(principal, Action.SESSION_REVOKED, origin, target, reason.value), now)
