"""Service accounts: how workers and scripts sign in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.control.app.outcome import settled
from services.control.app.ports import Transaction, World
from services.control.domain.api_key import API_KEY_BYTES, api_key, api_key_hash, is_api_key
from services.control.domain.audit import Action, AuditEntry, Origin, by
from services.control.domain.claims import (
    SERVICE_ACCOUNT_EDGE_TTL,
    WORKER_TTL,
    Claims,
    access_claims,
    worker_claims,
)
from services.control.domain.org import ServiceAccount
from services.control.domain.policy import OrgOwned, Scoped, authorize
from services.control.domain.principal import StandingPrincipal
from services.control.domain.scopes import SERVICE_ACCOUNT_SCOPES, Scope

MAX_SERVICE_ACCOUNTS = 1000
"""Most live service accounts of an org; what is listed stays one page."""


class Use(StrEnum):
    """What a token made from an API key is for."""

    WORKER = "worker"
    EDGE = "edge"


@dataclass(frozen=True)
class ExchangedToken:
    """A token made from an API key."""

    token: str
    expires_at: datetime
    use: Use


class ServiceAccountCases:
    """The service accounts of the caller's org."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def create(self, principal: StandingPrincipal, name: str, origin: Origin) -> tuple[ServiceAccount, str]:
        """A new account and its API key, which is nowhere else from then on."""
        _require_org(principal, Scope.SERVICE_ACCOUNTS_WRITE, principal.org_id)
        now = self._world.clock.now()
        key = api_key(self._world.entropy.random_bytes(API_KEY_BYTES))
        account = ServiceAccount(self._world.entropy.new_id("sva"), principal.org_id, name, now)
        async with self._world.store.transaction() as tx:
            if await tx.service_accounts.count_live(principal.org_id) >= MAX_SERVICE_ACCOUNTS:
                message = f"The org has {MAX_SERVICE_ACCOUNTS} service accounts; revoke those that nobody uses."
                raise Refusal("limit_reached", message)
            await tx.service_accounts.add(account, api_key_hash(self._world.hmac_key, key), principal.subject)
            entry = by(principal, Action.SERVICE_ACCOUNT_CREATED, origin, account.service_account_id)
            await tx.audit.add(entry, now)
        return account, key

    async def list(self, principal: StandingPrincipal) -> Sequence[ServiceAccount]:
        """The accounts of the caller's org, the newest first."""
        async with self._world.store.reading() as tx:
            return await tx.service_accounts.listed(principal.org_id)

    async def revoke(self, principal: StandingPrincipal, service_account_id: str, origin: Origin) -> None:
        """End an account of the caller's org; another org's is `not_found`."""
        async with self._world.store.transaction() as tx:
            account = await tx.service_accounts.locked(service_account_id)
            if account is None or account.org_id != principal.org_id:
                raise Refusal("not_found", "There is no such service account.", field="service_account_id")
            _require_org(principal, Scope.SERVICE_ACCOUNTS_WRITE, account.org_id)
            if account.revoked_at:
                return
            now = self._world.clock.now()
            await tx.service_accounts.revoke(service_account_id, now)
            await tx.audit.add(by(principal, Action.SERVICE_ACCOUNT_REVOKED, origin, service_account_id), now)

    async def exchange(self, key: str, use: Use, origin: Origin) -> ExchangedToken:
        """A token for an API key. Raises Refusal `invalid_api_key`, alike for unknown and revoked keys."""
        if not is_api_key(key):
            raise _unknown_key()
        async with self._world.store.transaction() as tx:
            outcome = await self._exchange(tx, api_key_hash(self._world.hmac_key, key), use, origin)
        account, now = settled(outcome)
        ttl = WORKER_TTL if use is Use.WORKER else SERVICE_ACCOUNT_EDGE_TTL
        token = self._world.signer.sign(self._claims(account, use, now))
        return ExchangedToken(token, now + ttl, use)

    async def _exchange(
        self, tx: Transaction, key_hash: bytes, use: Use, origin: Origin
    ) -> tuple[ServiceAccount, datetime] | Refusal:
        account = await tx.service_accounts.by_key(key_hash)
        if account is None:
            return _unknown_key()
        now = self._world.clock.now()
        entry = AuditEntry(Action.KEY_EXCHANGED, origin, account.service_account_id, account.org_id, use.value)
        if account.revoked_at:
            await tx.audit.add(replace(entry, reason="invalid_api_key"), now)
            return _unknown_key()
        await tx.audit.add(entry, now)
        return account, now

    def _claims(self, account: ServiceAccount, use: Use, now: datetime) -> Claims:
        jti = self._world.entropy.new_id("tok")
        if use is Use.WORKER:
            return worker_claims(account.service_account_id, account.org_id, jti, now)
        return access_claims(account_principal(account), jti, now, SERVICE_ACCOUNT_EDGE_TTL)


def account_principal(account: ServiceAccount) -> StandingPrincipal:
    """The service account as a caller of the edge."""
    scopes = SERVICE_ACCOUNT_SCOPES
    return StandingPrincipal(
        PrincipalKind.SERVICE_ACCOUNT, account.service_account_id, account.org_id, scopes, standing=scopes
    )


def _unknown_key() -> Refusal:
    return Refusal("invalid_api_key", "The API key is unknown or was revoked; make a new one.", field="api_key")


def _require_org(principal: StandingPrincipal, scope: Scope, org_id: str) -> None:
    if denied := authorize(principal, Scoped(scope), OrgOwned(org_id)):
        raise Refusal(denied.reason, denied.message)
