"""Deleting accounts (ADR 0062).

Locks are taken in one order: the address's bucket of sign-ins, orgs in the order of their ids, invitations, person,
sessions, keys, and last the order of revocations. Nobody signs in with the address, joins an org or makes a key
meanwhile; who waits for the person's lock finds the account deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.telemetry.metrics import show_at_zero
from services.control.accounts.domain import (
    Deletion,
    Place,
    deletion_of,
    require_confirmed,
    require_deletable,
)
from services.control.accounts.limits import MAX_ATTEMPTS, RETRY_AFTER_MS
from services.control.accounts.metrics import DELETED
from services.control.audit.app import Audited
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin
from services.control.blocks.app import BlockStore
from services.control.blocks.domain import Subject, is_subject_id
from services.control.mail import app as mail_app
from services.control.mail.domain.address import canonical_email
from services.control.notices.app import tell_of_deletion
from services.control.orgs.app import OrgStore
from services.control.orgs.domain import Org
from services.control.policy.domain import StandingPrincipal
from services.control.revocations.app import Revoking
from services.control.revocations.domain import ACCOUNT_DELETED, Revocation
from services.control.sessions.app import SessionStore
from services.control.sign_in.app import RateStore
from services.control.sign_in.domain.shares import address_bucket
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)


class AccountStore(Protocol):
    """What is stored of accounts. `BlockStore` has the accounts themselves."""

    async def places(self, user_id: str) -> Sequence[Place]:
        """The person's memberships, in the order of the orgs' ids."""
        ...

    async def forget_address(self, email: str) -> None:
        """Remove what is on its way to the address: codes, invitations and mail."""
        ...

    async def erase(self, user_id: str, now: datetime) -> None:
        """Remove everything of the account but its id, and when it was made and deleted."""
        ...


class Transaction(Audited, Revoking, mail_app.Transaction, Protocol):
    """A transaction with everything that ends with an account."""

    @property
    def accounts(self) -> AccountStore: ...
    @property
    def blocks(self) -> BlockStore: ...
    @property
    def orgs(self) -> OrgStore: ...
    @property
    def rates(self) -> RateStore: ...
    @property
    def sessions(self) -> SessionStore: ...


class _OrgsChanged(Exception):
    """The person's orgs are others than those that were locked. The transaction is rolled back."""


class Accounts:
    """The end of accounts. `delete_grace` is how long a deleted org is kept."""

    def __init__(self, transactions: Transactions[Transaction], clock: Clock, delete_grace: timedelta) -> None:
        self._transactions = transactions
        self._clock = clock
        self._delete_grace = delete_grace
        show_at_zero(DELETED, ("person", "operator"))

    async def own_deletion(self, principal: StandingPrincipal) -> Deletion:
        """What the deletion of the caller's account would end."""
        return await self.deletion(principal.subject)

    async def deletion(self, who: str) -> Deletion:
        """What the deletion of the account with this id or address would end. Raises Refusal `not_found`."""
        async with self._transactions.begin() as tx:
            account = await _found(tx, who)
            return deletion_of(account, await tx.accounts.places(account.subject))

    async def delete_own(self, principal: StandingPrincipal, user_id: str, origin: Origin) -> Deletion:
        """Delete the caller's account. `user_id` confirms it. Raises Refusal `not_found`, `last_owner`,
        `token_revoked`, `unavailable`."""
        require_confirmed(principal.subject, user_id)
        return await self._delete(principal.subject, principal.subject, origin, principal.session_id)

    async def delete(self, who: str, origin: Origin) -> Deletion:
        """Delete the account with this id or address, for an operator. A deleted account stays as it is.

        Raises Refusal `not_found`, `last_owner`, `unavailable`.
        """
        return await self._delete(who, OPERATOR, origin)

    async def _delete(self, who: str, actor: str, origin: Origin, session_id: str = "") -> Deletion:
        for _ in range(MAX_ATTEMPTS):
            with contextlib.suppress(_OrgsChanged):
                return await self._attempt(who, actor, origin, session_id)
        message = "the person joins and leaves orgs all the time; try again"
        raise Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS)

    async def _attempt(self, who: str, actor: str, origin: Origin, session_id: str) -> Deletion:
        async with self._transactions.begin() as tx:
            account = await _found(tx, who)
            if account.deleted_at:
                return Deletion(account)
            deletion = await self._locked(tx, account)
            if session_id:
                await _require_session(tx, session_id, account.subject)
            require_deletable(deletion)
            now = self._clock.now()
            await self._end(tx, deletion, actor, origin, now)
        by = "operator" if actor == OPERATOR else "person"
        DELETED.labels(by).inc()
        _log.info("account_deleted", user_id=account.subject, by=by)
        return replace(deletion, account=replace(deletion.account, name="", blocked_at=None, deleted_at=now))

    async def _locked(self, tx: Transaction, account: Subject) -> Deletion:
        """Lock everything that may be given to the account, and decide. Raises _OrgsChanged."""
        await tx.rates.lock(address_bucket(account.name), self._clock.now())
        before = [place.org.org_id for place in await tx.accounts.places(account.subject)]
        for org_id in before:
            await tx.orgs.locked(org_id, account.subject)
        await tx.accounts.forget_address(account.name)
        locked = await tx.blocks.locked(account.subject)
        places = await tx.accounts.places(account.subject)
        if locked is None or locked.deleted_at or [place.org.org_id for place in places] != before:
            raise _OrgsChanged
        return deletion_of(locked, places)

    async def _end(self, tx: Transaction, deletion: Deletion, actor: str, origin: Origin, now: datetime) -> None:
        account = deletion.account

        def record(action: Action, org: Org, target: str) -> AuditEntry:
            return AuditEntry(action, origin, actor, org.org_id, target, ACCOUNT_DELETED)

        for org in deletion.ending:
            await tx.orgs.save(replace(org, name="", delete_at=org.delete_at or now + self._delete_grace))
        ended = [org for org in deletion.ending if org.delete_at is None]
        for org in ended:
            await tx.audit.add(record(Action.ORG_DELETED, org, org.org_id), now)
        left = Action.MEMBER_REMOVED if actor == OPERATOR else Action.MEMBER_LEFT
        for org in deletion.left:
            await tx.audit.add(record(left, org, account.subject), now)
        entry = AuditEntry(Action.ACCOUNT_DELETED, origin, actor, account.org_id, account.subject)
        await tx.audit.add(entry, now)
        await tx.accounts.erase(account.subject, now)
        if "@" in account.name:  # an account that was set aside has no address
            await tell_of_deletion(tx, account.name, account.subject, now)
        await tx.revocations.add(Revocation.of_deleted_account(account.subject), now)
        for org in ended:
            await tx.revocations.add(Revocation.of_org(org.org_id, now), now)


async def _require_session(tx: Transaction, session_id: str, user_id: str) -> None:
    """Check that the person's session was not ended while its call waited. Raises Refusal `token_revoked`."""
    session = await tx.sessions.locked(session_id)
    if session is None or not session.is_of(user_id):
        raise Refusal("token_revoked", "the session was ended; sign in again")


async def _found(tx: Transaction, who: str) -> Subject:
    """The account with this id or address. Raises Refusal `not_found`, `invalid_value`."""
    try:
        found = await (tx.blocks.get(who) if is_subject_id(who) else tx.blocks.by_email(canonical_email(who)))
    except Refusal as refusal:
        raise Refusal(refusal.reason, refusal.message, field="person") from None
    if found is None or not found.is_person:
        raise Refusal("not_found", "there is no such person; give the id (usr_…) or the address", field="person")
    return found
