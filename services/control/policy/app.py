"""Who is calling, and may they: asked before every use case and every forwarded call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
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
    StandingPrincipal,
    authorize,
)
from services.control.transactions.app import Transactions

Standing = Callable[[StandingPrincipal, str], Awaitable[Scopes | None]]
"""What a principal's role gives it now; None when what is behind its token has ended. The text is the `jti` of the
principal's own token, empty when a service calls for it."""


_WITHOUT_STANDING = frozenset({"token_revoked", "org_changed"})


@dataclass(frozen=True, slots=True)
class Decision:
    """`denied` is None for yes. `scopes` is what the principal may do now; empty for one without standing."""

    denied: Deny | None
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a good access token says: the caller, as yet without standing, and the token's `jti`."""

    principal: StandingPrincipal
    jti: str


class AccessTokenVerifier(Protocol):
    """Checks access tokens that control itself signed."""

    async def verify(self, token: str) -> VerifiedToken:
        """What an access token for the edge says. Raises Refusal with the catalogue's reason for any other."""
        ...


class Gate:
    """Authenticates and authorizes. `standings` has one entry for each kind of principal that may call."""

    def __init__(
        self,
        transactions: Transactions[Audited],
        clock: Clock,
        verifier: AccessTokenVerifier,
        standings: Mapping[PrincipalKind, Standing],
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._verifier = verifier
        self._standings = standings

    async def admit(
        self, authorization: str | None, access: Access, method: str, origin: Origin
    ) -> StandingPrincipal | None:
        """The caller, allowed to do what needs `access`; None for public methods, which need no caller.

        `authorization` is the header's value. `method` is for the audit trail. Raises Refusal.
        """
        if isinstance(access, Public):
            return None
        verified = await self._verifier.verify(bearer_token(authorization))
        principal = await self.standing_now(verified.principal, verified.jti)
        denied = authorize(principal, access)
        if denied:
            await self.record_denied(principal, method, origin, denied.reason)
            raise Refusal(denied.reason, denied.message)
        return principal

    async def decide(self, principal: StandingPrincipal, access: Access, resource: Resource | None = None) -> Decision:
        """What `admit` would say, explained, for a principal that a service knows. Nothing is recorded.

        Raises Refusal `unavailable`.
        """
        try:
            standing = await self.standing_now(principal)
        except Refusal as refusal:
            if refusal.reason not in _WITHOUT_STANDING:
                raise
            return Decision(Deny(refusal.reason, refusal.message, Rule.STANDING), frozenset())
        return Decision(authorize(standing, access, resource), standing.effective_scopes)

    async def record_denied(self, principal: StandingPrincipal, method: str, origin: Origin, reason: str) -> None:
        """Put on record that a call was denied."""
        async with self._transactions.begin() as tx:
            await tx.audit.add(by(principal, Action.CALL_DENIED, origin, method, reason), self._clock.now())

    async def standing_now(self, principal: StandingPrincipal, jti: str = "") -> StandingPrincipal:
        """The principal with what its role gives it now. `jti` is that of the principal's own token, empty when a
        service calls for it. Raises Refusal `token_revoked`."""
        ask = self._standings.get(principal.kind)
        standing = await ask(principal, jti) if ask else None
        if standing is None:
            raise Refusal("token_revoked", "the session or key behind the token was ended; sign in again")
        return replace(principal, standing=standing)
