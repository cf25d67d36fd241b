"""Who is calling and whether they may: checked before every use case and every forwarded call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token
from services.control.audit.app import Audited
from services.control.audit.domain import Action, Origin, by
from services.control.policy.domain import (
    Access,
    Deny,
    Public,
    Resource,
    Rule,
    Scopes,
    Standing,
    StandingPrincipal,
    authorize,
    sign_in_denied,
)
from services.control.transactions.app import Transactions

AskStanding = Callable[[StandingPrincipal, str], Awaitable[Standing | None]]
"""Returns the present standing of a principal; None when the session, key or account behind its token has ended. The
text is the `jti` of the principal's own token, empty when a service calls on the principal's behalf."""


_WITHOUT_STANDING = frozenset({"token_revoked", "org_changed"})


@dataclass(frozen=True, slots=True)
class Decision:
    """`denied` is None if access is allowed. `scopes` is what the principal may do now; empty if it has no standing."""

    denied: Deny | None
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The contents of a valid access token: the caller, whose standing isn't known yet, and the token's `jti`."""

    principal: StandingPrincipal
    jti: str


class AccessTokenVerifier(Protocol):
    """Checks access tokens that control itself signed."""

    async def verify(self, token: str) -> VerifiedToken:
        """Return what an access token for the edge says. Raises Refusal with the catalogue's reason for any other."""
        ...


class Gate:
    """Authenticates and authorizes. `standings` has one entry for each kind of principal that may call. A sign-in older
    than `max_sign_in_age` is not fresh; with None, every sign-in is."""

    def __init__(
        self,
        transactions: Transactions[Audited],
        clock: Clock,
        verifier: AccessTokenVerifier,
        standings: Mapping[PrincipalKind, AskStanding],
        max_sign_in_age: timedelta | None = None,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._verifier = verifier
        self._standings = standings
        self._max_sign_in_age = max_sign_in_age

    async def caller(self, authorization: str | None, access: Access) -> StandingPrincipal | None:
        """Return the caller of a method with this access; None for public methods, which need no caller.

        `authorization` is the header's value. Raises Refusal.
        """
        if isinstance(access, Public):
            return None
        verified = await self._verifier.verify(bearer_token(authorization))
        return await self.standing_now(verified.principal, verified.jti)

    async def admit(self, principal: StandingPrincipal, access: Access, method: str, origin: Origin) -> None:
        """Check that the caller may do what needs `access`, and record it if not: `method` is for the audit log.

        A record costs a transaction, so a caller's limits come before. Raises Refusal.
        """
        denied = self._denied(principal, access)
        if denied:
            await self.record_denied(principal, method, origin, denied.reason, principal.org_id)
            raise Refusal(denied.reason, denied.message, metadata=denied.metadata)

    async def decide(self, principal: StandingPrincipal, access: Access, resource: Resource | None = None) -> Decision:
        """Decide as `admit` would, with an explanation, for a principal that a service knows. Records nothing.

        Raises Refusal `unavailable`.
        """
        try:
            standing = await self.standing_now(principal)
        except Refusal as refusal:
            if refusal.reason not in _WITHOUT_STANDING:
                raise
            return Decision(Deny(refusal.reason, refusal.message, Rule.STANDING), frozenset())
        return Decision(self._denied(standing, access, resource), standing.effective_scopes)

    def _denied(self, principal: StandingPrincipal, access: Access, resource: Resource | None = None) -> Deny | None:
        denied = authorize(principal, access, resource)
        return denied or sign_in_denied(principal, access, self._clock.now(), self._max_sign_in_age)

    async def record_denied(
        self, principal: StandingPrincipal, method: str, origin: Origin, reason: str, org_id: str
    ) -> None:
        """Record in the audit log of an org that a call about it was denied."""
        entry = replace(by(principal, Action.CALL_DENIED, origin, method, reason), org_id=org_id)
        async with self._transactions.begin() as tx:
            await tx.audit.add(entry, self._clock.now())

    async def standing_now(self, principal: StandingPrincipal, jti: str = "") -> StandingPrincipal:
        """Return the principal with its present standing. `jti` is that of the principal's own token, empty when a
        service calls on its behalf. Raises Refusal `token_revoked`."""
        stood_at = self._clock.now()
        ask = self._standings.get(principal.kind)
        standing = await ask(principal, jti) if ask else None
        if standing is None:
            raise Refusal(
                "token_revoked", "the session or key of the token has ended; sign in again, or use another key"
            )
        return replace(principal, standing=standing.scopes, signed_in_at=standing.signed_in_at, stood_at=stood_at)
