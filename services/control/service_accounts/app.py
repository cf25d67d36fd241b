"""Service accounts: making and ending them, and what their keys are exchanged for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.audit.app import Audited
from services.control.audit.domain import Action, AuditEntry, Origin, by
from services.control.orgs.app import OrgStore
from services.control.policy.domain import (
    SERVICE_ACCOUNT_SCOPES,
    OrgOwned,
    Scope,
    Scoped,
    Scopes,
    StandingPrincipal,
    authorize,
)
from services.control.revocations.app import Revoking
from services.control.revocations.domain import Revocation
from services.control.service_accounts.domain import (
    API_KEY_BYTES,
    ServiceAccount,
    Use,
    api_key,
    api_key_hash,
    is_api_key,
)
from services.control.service_accounts.limits import MAX_SERVICE_ACCOUNTS
from services.control.tokens.app import IssuedToken, TokenIssuer
from services.control.transactions.app import Transactions, settled


class ServiceAccountStore(Protocol):
    """Service accounts and the hashes of their keys."""

    async def add(self, account: ServiceAccount, key_hash: bytes, created_by: str) -> None:
        """Store a new one."""
        ...

    async def by_key(self, key_hash: bytes) -> ServiceAccount | None:
        """The account of a key, revoked or not."""
        ...

    async def get(self, service_account_id: str) -> ServiceAccount | None:
        """The account."""
        ...

    async def locked(self, service_account_id: str) -> ServiceAccount | None:
        """The account, locked until the transaction ends."""
        ...

    async def count_live(self, org_id: str) -> int:
        """How many accounts of the org were not revoked. Locks the org, so that the number stays right."""
        ...

    async def revoke(self, service_account_id: str, now: datetime) -> None:
        """End it, unless it has ended."""
        ...

    async def listed(self, org_id: str) -> Sequence[ServiceAccount]:
        """The org's accounts, the newest first."""
        ...


class Transaction(Audited, Revoking, Protocol):
    """A transaction with service accounts."""

    @property
    def service_accounts(self) -> ServiceAccountStore: ...
    @property
    def orgs(self) -> OrgStore: ...


class ServiceAccounts:
    """The service accounts of the caller's org. `hmac_key` hashes API keys."""

    def __init__(
        self, transactions: Transactions[Transaction], clock: Clock, issuer: TokenIssuer, hmac_key: bytes
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._issuer = issuer
        self._hmac_key = hmac_key

    async def create(self, principal: StandingPrincipal, name: str, origin: Origin) -> tuple[ServiceAccount, str]:
        """A new account and its API key, which is nowhere else from then on."""
        _require_org(principal, Scope.SERVICE_ACCOUNTS_WRITE, principal.org_id)
        now = self._clock.now()
        key = api_key(secrets.token_bytes(API_KEY_BYTES))
        account = ServiceAccount(new_id("sva"), principal.org_id, name, now)
        async with self._transactions.begin() as tx:
            if await tx.service_accounts.count_live(principal.org_id) >= MAX_SERVICE_ACCOUNTS:
                message = f"the org has {MAX_SERVICE_ACCOUNTS} service accounts; revoke those that nobody uses"
                raise Refusal("limit_reached", message)
            await tx.service_accounts.add(account, api_key_hash(self._hmac_key, key), principal.subject)
            entry = by(principal, Action.SERVICE_ACCOUNT_CREATED, origin, account.service_account_id)
            await tx.audit.add(entry, now)
        return account, key

    async def list(self, principal: StandingPrincipal) -> Sequence[ServiceAccount]:
        """The accounts of the caller's org, the newest first."""
        async with self._transactions.autocommit() as tx:
            return await tx.service_accounts.listed(principal.org_id)

    async def revoke(self, principal: StandingPrincipal, service_account_id: str, origin: Origin) -> None:
        """End an account of the caller's org; another org's is `not_found`."""
        async with self._transactions.begin() as tx:
            account = await tx.service_accounts.locked(service_account_id)
            if account is None or account.org_id != principal.org_id:
                message = "there is no such service account; list those of your org"
                raise Refusal("not_found", message, field="service_account_id")
            _require_org(principal, Scope.SERVICE_ACCOUNTS_WRITE, account.org_id)
            if account.revoked_at:
                return
            now = self._clock.now()
            await tx.service_accounts.revoke(service_account_id, now)
            await tx.revocations.add(Revocation.of_service_account(service_account_id), now)
            await tx.audit.add(by(principal, Action.SERVICE_ACCOUNT_REVOKED, origin, service_account_id), now)

    async def exchange(self, key: str, use: Use, origin: Origin) -> IssuedToken:
        """A token for an API key. Raises Refusal `invalid_api_key`, alike for unknown and revoked keys."""
        if not is_api_key(key):
            raise _unknown_key()
        async with self._transactions.begin() as tx:
            outcome = await self._exchange(tx, api_key_hash(self._hmac_key, key), use, origin)
        account, now = settled(outcome)
        if use is Use.WORKER:
            return self._issuer.for_worker(account.service_account_id, account.org_id, now)
        return self._issuer.for_service_account(account.principal, now)

    async def _exchange(
        self, tx: Transaction, key_hash: bytes, use: Use, origin: Origin
    ) -> tuple[ServiceAccount, datetime] | Refusal:
        account = await tx.service_accounts.by_key(key_hash)
        if account is None or not await tx.orgs.held_open(account.org_id):
            return _unknown_key()
        now = self._clock.now()
        entry = AuditEntry(Action.KEY_EXCHANGED, origin, account.service_account_id, account.org_id, use.value)
        if account.revoked_at:
            await tx.audit.add(replace(entry, reason="invalid_api_key"), now)
            return _unknown_key()
        await tx.audit.add(entry, now)
        return account, now

    async def standing(self, principal: StandingPrincipal, _jti: str) -> Scopes | None:
        """What a service account may do now; None when it has ended. See `policy.app.Standing`."""
        async with self._transactions.autocommit() as tx:
            account = await tx.service_accounts.get(principal.subject)
        ended = account is None or account.revoked_at or account.org_id != principal.org_id
        return None if ended else SERVICE_ACCOUNT_SCOPES


def _unknown_key() -> Refusal:
    return Refusal("invalid_api_key", "the API key is unknown or was revoked; make a new one", field="api_key")


def _require_org(principal: StandingPrincipal, scope: Scope, org_id: str) -> None:
    if denied := authorize(principal, Scoped(scope), OrgOwned(org_id)):
        raise Refusal(denied.reason, denied.message)
