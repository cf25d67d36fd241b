"""A person's sessions: beginning, keeping alive, listing and ending them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_platform.tasks.together import Together
from services.control.audit.app import Audited
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin, by
from services.control.housekeeping.limits import Retention
from services.control.mail import app as mail_app
from services.control.notices.app import tell_of_new_device
from services.control.orgs.app import OrgStore
from services.control.orgs.domain import User, no_such_org, org_deleted, require_open
from services.control.policy.domain import Scopes, Standing, StandingPrincipal, role_scopes
from services.control.revocations.app import Revoking
from services.control.revocations.domain import Revocation
from services.control.sessions.domain import (
    RefreshToken,
    RevokeReason,
    Session,
    StandingSession,
    access_token_id,
    decide_refresh,
    decide_sign_in,
    parse_refresh_token,
    refresh_token,
    to_revoke,
    used_counter,
)
from services.control.tokens.app import TokenIssuer
from services.control.transactions.app import Transactions, settled

_REFRESH_MESSAGES = {
    "token_replay": "an old refresh token was used again, so the session was ended; sign in again",
    "token_revoked": "the session was ended; sign in again",
    "reauth_required": "the session was not used for too long, or is too old; sign in again",
}
_OTHER_DEVICE = "the refresh token came from another device than its own, so the session was ended; sign in again"


class SessionStore(Protocol):
    """Sessions."""

    async def add(self, session: Session) -> None:
        """Store a new session."""
        ...

    async def locked(self, session_id: str) -> Session | None:
        """The session, locked until the transaction ends."""
        ...

    async def of_device(self, user_id: str, device_id: str) -> Sequence[Session]:
        """The person's sessions on the device that were not revoked, locked."""
        ...

    async def known_device(self, email: str, device_id: str) -> bool:
        """Whether the account of the address was signed in on the device, and none of its sessions there was ended for
        safety. Takes the same time for an address without an account."""
        ...

    async def of_person(self, user_id: str, now: datetime) -> Sequence[Session]:
        """The person's sessions that were not revoked and have not ended by age, locked."""
        ...

    async def save(self, session: Session) -> None:
        """Store the session's changes: counter, refresh, sign-in again, revocation."""
        ...

    async def switch(self, session_id: str, org_id: str) -> None:
        """Let the session act in another org."""
        ...

    async def sweep(self, after: str, ended_before: datetime, by_operators_before: datetime) -> str:
        """Remove sessions that ended earlier, among a limited number of sessions after an id. Return the id after which
        to go on; empty at the end."""
        ...

    async def mark_used(self, session_id: str, counter: int) -> None:
        """Record that an access token of this counter was let in, unless a newer one already was."""
        ...

    async def listed(self, user_id: str, now: datetime) -> Sequence[Session]:
        """The person's sessions, the newest first: those that go on, and those revoked within `REVOKED_SHOWN_FOR`."""
        ...

    async def standing(self, session_id: str) -> StandingSession | None:
        """The session, and the role that the person has now in the session's org."""
        ...

    async def standings(self, session_ids: Sequence[str]) -> Mapping[str, StandingSession]:
        """The same of several sessions, by id, without those that don't exist."""
        ...

    async def standing_in(self, session_id: str, org_id: str) -> tuple[bool, StandingSession | None]:
        """Whether anybody may act in the org, and the session as `standing` returns it, whatever org it acts in."""
        ...


class Transaction(Audited, Revoking, mail_app.Transaction, Protocol):
    """A transaction with sessions."""

    @property
    def sessions(self) -> SessionStore: ...
    @property
    def orgs(self) -> OrgStore: ...


@dataclass(frozen=True)
class SessionTokens:
    """The data of a session that a client keeps."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    org_id: str


class Sessions:
    """The sessions of people. Refresh tokens are made with `hmac_key`."""

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        issuer: TokenIssuer,
        hmac_key: bytes,
        retention: Retention,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._issuer = issuer
        self._hmac_key = hmac_key
        self._standings = Together(self._read_standings)
        self._retention = retention
        self._swept_to = ""

    async def sign_in(
        self, tx: Transaction, user: User, device_id: str, token: str, origin: Origin, now: datetime, *, new_user: bool
    ) -> Session:
        """Return the session of a person who has signed in on a device: the one of the refresh token, if the person has
        it on this device and may continue it, otherwise a new one. Ends the person's other sessions on the device.
        Tells the person by mail of a device that is new to the account."""
        entered = decide_sign_in(await tx.sessions.of_device(user.user_id, device_id), self._presented(token), now)
        for session in entered.ending:
            assert session.revoke_reason is not None
            await _end(tx, session, now)
            await tx.audit.add(_of(session, Action.SESSION_REVOKED, origin, session.revoke_reason), now)
        if entered.going_on is not None:
            await tx.sessions.save(entered.going_on)
            return entered.going_on
        surprising = not new_user and not await tx.sessions.known_device(user.email, device_id)
        session = await self._begin(tx, user, device_id, now)
        if surprising:
            await tell_of_new_device(tx, user.email, session.session_id, now)
        return session

    def _presented(self, token: str) -> RefreshToken | None:
        """Parse a refresh token; None for a text that control never made, because a sign-in doesn't depend on it."""
        try:
            return parse_refresh_token(self._hmac_key, token)
        except Refusal:
            return None

    async def _begin(self, tx: Transaction, user: User, device_id: str, now: datetime) -> Session:
        session = Session(
            session_id=new_id("ses"),
            user_id=user.user_id,
            org_id=user.org_id,
            device_id=device_id,
            created_at=now,
            refreshed_at=now,
        )
        await tx.sessions.add(session)
        return session

    def tokens(self, session: Session) -> SessionTokens:
        """Return the tokens at the session's counter, made from its row alone; the role is looked up with each call.
        At one counter the tokens are always the same, byte for byte, so that concurrent refreshes and a refresh whose
        answer was lost all get the same answer. (Once the access token has expired, a lost answer is repeated with a
        new access token; the refresh token stays the same.)"""
        jti = access_token_id(session.session_id, session.counter)
        principal = StandingSession(session, None).principal
        access = self._issuer.for_session(principal, jti, session.refreshed_at, session.access_ttl)
        refresh = refresh_token(self._hmac_key, session.session_id, session.counter)
        return SessionTokens(access.token, access.expires_at, refresh, session.org_id)

    async def refresh(self, token: str, device_id: str, origin: Origin) -> SessionTokens:
        """Return new tokens for a refresh token. Raises Refusal `invalid_token`, `token_replay`, `token_revoked`,
        `reauth_required`."""
        presented = parse_refresh_token(self._hmac_key, token)
        async with self._transactions.begin() as tx:
            outcome = await self._refresh(tx, presented, device_id, origin)
        return settled(outcome)

    async def _refresh(
        self, tx: Transaction, presented: RefreshToken, device_id: str, origin: Origin
    ) -> SessionTokens | Refusal:
        now = self._clock.now()
        before = await tx.sessions.locked(presented.session_id)
        standing = await tx.sessions.standing(presented.session_id)
        if before is None or standing is None or standing.blocked:
            return Refusal("token_revoked", _REFRESH_MESSAGES["token_revoked"])
        refreshed = decide_refresh(before, presented.counter, device_id, now)
        if refreshed.session is not before:
            await (_end(tx, refreshed.session, now) if refreshed.reason else tx.sessions.save(refreshed.session))
            action = Action.SESSION_REVOKED if refreshed.reason else Action.SESSION_REFRESHED
            await tx.audit.add(_of(before, action, origin, refreshed.reason or ""), now)
        if refreshed.reason:
            message = _OTHER_DEVICE if refreshed.other_device else _REFRESH_MESSAGES[refreshed.reason]
            return Refusal(refreshed.reason, message)
        return self.tokens(refreshed.session)

    async def end_for_operator(self, tx: Transaction, user_id: str, session_id: str, origin: Origin) -> Sequence[str]:
        """End a session of a person, whom the caller has locked, or all of them with an empty id. Each is recorded in
        the org that it acts in. Returns the ids of the sessions that this ends. Raises Refusal `not_found` for
        somebody else's session."""
        now, reason = self._clock.now(), RevokeReason.ADMIN_REVOKED
        ending = await self._ending(tx, user_id, session_id, now)
        for session in ending:
            entry = replace(_of(session, Action.SESSION_REVOKED, origin, reason.value), actor=OPERATOR)
            await tx.audit.add(entry, now)
        for session in ending:
            await _end(tx, session.revoked(reason, now), now)
        return [session.session_id for session in ending]

    async def _ending(self, tx: Transaction, user_id: str, session_id: str, now: datetime) -> Sequence[Session]:
        if not session_id:
            return await tx.sessions.of_person(user_id, now)
        session = await tx.sessions.locked(session_id)
        if session is None or session.user_id != user_id:
            message = "the person has no such session; list the person's sessions"
            raise Refusal("not_found", message, field="session_id")
        return [] if session.revoked_at else [session]

    async def of_person(self, tx: Transaction, user_id: str) -> Sequence[Session]:
        """A person's sessions, the newest first."""
        return await tx.sessions.listed(user_id, self._clock.now())

    async def list(self, principal: StandingPrincipal) -> Sequence[Session]:
        """The caller's sessions, the newest first."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        async with self._transactions.autocommit() as tx:
            return await self.of_person(tx, principal.subject)

    async def revoke(self, principal: StandingPrincipal, session_id: str, origin: Origin) -> None:
        """End a session of the caller's, the present one when `session_id` is empty. Raises Refusal `not_found` for
        somebody else's."""
        target = session_id or principal.session_id
        async with self._transactions.begin() as tx:
            session = await tx.sessions.locked(target) if target else None
            if session is None or session.user_id != principal.subject:
                message = "there is no such session of yours; list your sessions"
                raise Refusal("not_found", message, field="session_id")
            if session.revoked_at:
                return
            now = self._clock.now()
            reason = RevokeReason.USER_REQUESTED
            await _end(tx, session.revoked(reason, now), now)
            await tx.audit.add(by(principal, Action.SESSION_REVOKED, origin, target, reason.value), now)

    async def revoke_many(
        self, principal: StandingPrincipal, device_id: str, origin: Origin, *, keep_current: bool
    ) -> Sequence[str]:
        """End the caller's sessions on a device, or on all devices with an empty id, including the present one unless
        `keep_current`. Ends them in one transaction, and returns the ids of those that this ended."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        async with self._transactions.begin() as tx:
            now, reason = self._clock.now(), RevokeReason.USER_REQUESTED
            kept = principal.session_id if keep_current else ""
            ending = to_revoke(await tx.sessions.of_person(principal.subject, now), device_id, kept)
            for session in ending:
                target = session.session_id
                await tx.audit.add(by(principal, Action.SESSION_REVOKED, origin, target, reason.value), now)
            for session in ending:
                await _end(tx, session.revoked(reason, now), now)
        return [session.session_id for session in ending]

    async def switch(self, principal: StandingPrincipal, org_id: str, origin: Origin) -> None:
        """Let the caller's session act in another org of the person's. Raises Refusal `not_found`, `org_deleted`."""
        async with self._transactions.begin() as tx:
            # Keeps the membership as it is: a leave or removal waits for it, finds the session here, and moves it out.
            membership = await tx.orgs.shared(org_id, principal.subject)
            if membership is None:
                raise no_such_org()
            require_open(membership.org)
            session = await tx.sessions.locked(principal.session_id)
            if session is None or not session.is_of(principal.subject):
                raise Refusal("token_revoked", _REFRESH_MESSAGES["token_revoked"])
            if session.org_id != org_id:
                await tx.sessions.switch(session.session_id, org_id)
                await tx.audit.add(by(principal, Action.ORG_SWITCHED, origin, org_id), self._clock.now())

    async def still(self, tx: Transaction, principal: StandingPrincipal) -> tuple[Scopes, datetime]:
        """Return the scopes that the caller's role gives now, and when the session ends by itself. Until the
        transaction ends, nobody can revoke tokens of the caller's org. Raises Refusal `org_deleted`,
        `token_revoked`, `org_changed`."""
        await tx.orgs.hold(principal.org_id)
        is_open, standing = await tx.sessions.standing_in(principal.session_id, principal.org_id)
        if not is_open:
            raise org_deleted()
        found = _acting(standing, principal)
        if found is None:
            raise Refusal("token_revoked", _REFRESH_MESSAGES["token_revoked"])
        return role_scopes(found.role), found.session.expires_at

    async def standing(self, principal: StandingPrincipal, jti: str) -> Standing | None:
        """Return what a person's role gives now; None if the session has ended or the person is blocked. See
        `policy.app.AskStanding`."""
        # A token of another org doesn't count as used, because the client is about to present its refresh token.
        found = _acting(await self._standings.ask(principal.session_id), principal)
        if found is None or found.blocked:
            return None
        session = found.session
        # Recorded before the caller is let in: from here on, the previous refresh token counts as stolen.
        counter = used_counter(session.session_id, jti)
        if counter > session.used_counter:
            async with self._transactions.autocommit() as tx:
                await tx.sessions.mark_used(session.session_id, counter)
        return Standing(role_scopes(found.role), session.signed_in_at)

    async def sweep(self) -> None:
        """Remove sessions that ended long ago. Looks at a page of all sessions, and the next time at the next one. The
        tokens of a removed session are refused as those of one that was revoked."""
        now, retention = self._clock.now(), self._retention
        async with self._transactions.autocommit() as tx:
            self._swept_to = await tx.sessions.sweep(
                self._swept_to, now - retention.ended, now - retention.ended_by_operators
            )

    async def _read_standings(self, session_ids: Sequence[str]) -> Sequence[StandingSession | None]:
        async with self._transactions.autocommit() as tx:
            found = await tx.sessions.standings(session_ids)
        return [found.get(session_id) for session_id in session_ids]


def _acting(found: StandingSession | None, principal: StandingPrincipal) -> StandingSession | None:
    """The session, if it is still the caller's. Raises Refusal `org_changed` if it acts in another org now."""
    if found is None or not found.session.is_of(principal.subject):
        return None
    if found.session.org_id != principal.org_id:
        raise Refusal("org_changed", "the session acts in another org now; get a new access token for it")
    return found


async def _end(tx: Transaction, revoked: Session, now: datetime) -> None:
    """Store that a session has ended, and tell every service that accepts its tokens."""
    assert revoked.revoke_reason is not None
    await tx.sessions.save(revoked)
    await tx.revocations.add(Revocation.of_session(revoked.session_id, revoked.revoke_reason), now)


def _of(session: Session, action: Action, origin: Origin, reason: str) -> AuditEntry:
    return AuditEntry(action, origin, session.user_id, session.org_id, session.session_id, reason)
