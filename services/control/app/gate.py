"""Who is calling, and may they: asked before every use case and every forwarded call."""

from __future__ import annotations

from dataclasses import replace

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token
from services.control.app.ports import TokenVerifier, Transaction, World
from services.control.app.tokens import role_scopes
from services.control.domain.audit import Action, Origin, by
from services.control.domain.claims import principal_of
from services.control.domain.policy import Access, Public, authorize
from services.control.domain.principal import StandingPrincipal
from services.control.domain.scopes import SERVICE_ACCOUNT_SCOPES, Scopes
from services.control.domain.session import used_counter


class Gate:
    """Authenticates and authorizes."""

    def __init__(self, world: World, verifier: TokenVerifier) -> None:
        self._world = world
        self._verifier = verifier

    async def admit(
        self, authorization: str | None, access: Access, method: str, origin: Origin
    ) -> StandingPrincipal | None:
        """The caller, allowed to do what needs `access`; None for public methods, whose callers nobody asks for.

        `authorization` is the header's value. `method` is for the audit trail. Raises Refusal.
        """
        if isinstance(access, Public):
            return None
        principal = await self._authenticate(authorization)
        denied = authorize(principal, access)
        if denied:
            async with self._world.store.transaction() as tx:
                entry = by(principal, Action.CALL_DENIED, origin, method, denied.reason)
                await tx.audit.add(entry, self._world.clock.now())
            raise Refusal(denied.reason, denied.message)
        return principal

    async def _authenticate(self, authorization: str | None) -> StandingPrincipal:
        claims = await self._verifier.verify_access(bearer_token(authorization))
        return await self.standing_now(principal_of(claims), str(claims.get("jti", "")))

    async def standing_now(self, principal: StandingPrincipal, jti: str = "") -> StandingPrincipal:
        """The principal with what its role gives it now. `jti` is that of the principal's own token, empty when a
        service calls for it. Raises Refusal `token_revoked`."""
        async with self._world.store.reading() as tx:
            standing = await self._standing(tx, principal, jti)
        if standing is None:
            raise Refusal("token_revoked", "The session or key behind the token was ended; sign in again.")
        return replace(principal, standing=standing)

    async def _standing(self, tx: Transaction, principal: StandingPrincipal, jti: str) -> Scopes | None:
        """What the caller's role gives it now; None when what is behind its token has ended."""
        match principal.kind:
            case PrincipalKind.USER:
                return await self._person_standing(tx, principal, jti)
            case PrincipalKind.SERVICE_ACCOUNT:
                account = await tx.service_accounts.get(principal.subject)
                ended = account is None or account.revoked_at or account.org_id != principal.org_id
                return None if ended else SERVICE_ACCOUNT_SCOPES
            case PrincipalKind.WORKER:
                return None

    async def _person_standing(self, tx: Transaction, principal: StandingPrincipal, jti: str) -> Scopes | None:
        found = await tx.sessions.standing(principal.session_id)
        if found is None or found[0].revoked_at or found[0].user_id != principal.subject:
            return None
        session, role = found
        if session.org_id != principal.org_id:
            return None
        # Recorded before the caller is let in: from here on the refresh token before this one is a stolen one.
        counter = used_counter(session.session_id, jti)
        if counter > session.used_counter:
            await tx.sessions.mark_used(session.session_id, counter)
        return role_scopes(role)
