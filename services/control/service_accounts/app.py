"""Service accounts: making and ending them. Locks are taken in the order of keys: org, account, key, revocations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.api_keys.app import keys as keys_app
from services.control.api_keys.app.keys import ApiKeys, NewKey, Wanted
from services.control.audit.domain import Action, Origin, by
from services.control.housekeeping.limits import Retention
from services.control.orgs.app import acting
from services.control.policy.domain import SERVICE_ACCOUNT_SCOPES, Scope, Standing, StandingPrincipal
from services.control.revocations.domain import Revocation
from services.control.service_accounts.domain import ServiceAccount
from services.control.service_accounts.limits import MAX_SERVICE_ACCOUNTS
from services.control.transactions.app import Transactions


class ServiceAccountStore(Protocol):
    """Service accounts."""

    async def add(self, account: ServiceAccount, created_by: str) -> None:
        """Store a new account."""
        ...

    async def keep_for_release_before(self, service_account_id: str, key_hash: bytes) -> None:
        """Let the previous release accept this key, too."""
        ...

    async def get(self, service_account_id: str) -> ServiceAccount | None:
        """The account."""
        ...

    async def locked(self, service_account_id: str) -> ServiceAccount | None:
        """The account, locked until the transaction ends."""
        ...

    async def count_live(self, org_id: str) -> int:
        """Count the org's accounts that were not revoked. The count stays right because the org is locked."""
        ...

    async def revoke(self, service_account_id: str, now: datetime) -> None:
        """End the account, unless it has ended."""
        ...

    async def sweep(self, after: str, ended_before: datetime) -> str:
        """Remove accounts that ended earlier, and those of orgs that are gone since, with their keys, among a limited
        number of accounts after an id. Return the id after which to go on; empty at the end."""
        ...

    async def listed(self, org_id: str) -> Sequence[ServiceAccount]:
        """The org's accounts, the newest first."""
        ...


class Transaction(keys_app.Transaction, Protocol):
    """A transaction with service accounts."""

    @property
    def service_accounts(self) -> ServiceAccountStore: ...


class ServiceAccounts:
    """The service accounts of the caller's org."""

    def __init__(
        self, transactions: Transactions[Transaction], clock: Clock, api_keys: ApiKeys, retention: Retention
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._api_keys = api_keys
        self._retention = retention
        self._swept_to = ""

    async def create(
        self, principal: StandingPrincipal, wanted: Wanted, origin: Origin
    ) -> tuple[ServiceAccount, NewKey]:
        """Create an account and its first key, which has the account's name.

        Raises Refusal `limit_reached`, `missing_scope`, `invalid_value`.
        """
        now = self._clock.now()
        account = ServiceAccount(new_id("sva"), principal.org_id, wanted.name, now)
        async with self._transactions.begin() as tx:
            await acting(tx, principal, principal.org_id, Scope.SERVICE_ACCOUNTS_WRITE)
            if await tx.service_accounts.count_live(principal.org_id) >= MAX_SERVICE_ACCOUNTS:
                message = f"the org has {MAX_SERVICE_ACCOUNTS} service accounts; revoke those that nobody uses"
                raise Refusal("limit_reached", message)
            await tx.service_accounts.add(account, principal.subject)
            entry = by(principal, Action.SERVICE_ACCOUNT_CREATED, origin, account.service_account_id)
            await tx.audit.add(entry, now)
            new = await self._api_keys.issue(tx, principal, account.service_account_id, wanted, origin)
            if new.key.full:
                key_hash = self._api_keys.hash_of(new)
                await tx.service_accounts.keep_for_release_before(account.service_account_id, key_hash)
        return account, new

    async def list(self, principal: StandingPrincipal) -> Sequence[ServiceAccount]:
        """The accounts of the caller's org, the newest first."""
        async with self._transactions.autocommit() as tx:
            return await tx.service_accounts.listed(principal.org_id)

    async def revoke(self, principal: StandingPrincipal, service_account_id: str, origin: Origin) -> None:
        """End an account of the caller's org. Raises Refusal `not_found` for an account of another org."""
        async with self._transactions.begin() as tx:
            await acting(tx, principal, principal.org_id, Scope.SERVICE_ACCOUNTS_WRITE)
            account = await tx.service_accounts.locked(service_account_id)
            if account is None or account.org_id != principal.org_id:
                message = "there is no such service account; list those of your org"
                raise Refusal("not_found", message, field="service_account_id")
            if account.revoked_at:
                return
            now = self._clock.now()
            await tx.service_accounts.revoke(service_account_id, now)
            await tx.audit.add(by(principal, Action.SERVICE_ACCOUNT_REVOKED, origin, service_account_id), now)
            await tx.revocations.add(Revocation.of_service_account(service_account_id), now)

    async def sweep(self) -> None:
        """Remove accounts that ended long ago. Looks at a page of all accounts, and the next time at the next one."""
        async with self._transactions.autocommit() as tx:
            ended_before = self._clock.now() - self._retention.ended
            self._swept_to = await tx.service_accounts.sweep(self._swept_to, ended_before)

    async def standing(self, principal: StandingPrincipal, _jti: str) -> Standing | None:
        """Return what a service account may do now; None if it has ended or is blocked, or its org was deleted. For
        tokens that name no key: those of the previous release. See `policy.app.AskStanding`."""
        async with self._transactions.autocommit() as tx:
            account = await tx.service_accounts.get(principal.subject)
        if account is None or account.revoked_at or account.blocked_at or account.org_id != principal.org_id:
            return None
        return Standing(SERVICE_ACCOUNT_SCOPES)
