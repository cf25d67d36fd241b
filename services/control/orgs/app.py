"""People and their orgs: the first sign-in of a person, and what people do with their orgs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_platform.tasks.together import Together
from services.control.audit.app import Audited
from services.control.audit.domain import Action, AuditEntry, Origin, by
from services.control.orgs.domain import (
    Membership,
    Org,
    User,
    acting_as,
    deleted,
    no_such_org,
    personal_org_name,
    require_name,
    require_open,
    restored,
)
from services.control.orgs.limits import MAX_ENDED_AT_A_TIME, MAX_OWNED_ORGS
from services.control.policy.domain import OrgOwned, Role, Scope, Scoped, StandingPrincipal, require
from services.control.revocations.app import Revoking
from services.control.revocations.domain import Revocation
from services.control.transactions.app import Transactions


class PeopleStore(Protocol):
    """Users."""

    async def by_email(self, email: str) -> User | None:
        """The person with the address."""
        ...

    async def add(self, user: User, org_name: str, now: datetime) -> None:
        """Store a new person, and the person's own org with the person as its owner."""
        ...

    async def email(self, user_id: str) -> str:
        """The person's address, empty if there is no such person, or the account is deleted."""
        ...

    async def emails(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """The same of several people, by id, without those that have none."""
        ...

    async def hold(self, user_id: str) -> bool:
        """Whether the account is not deleted. Nobody deletes it until the transaction ends."""
        ...


class OrgStore(Protocol):
    """Orgs and their members. Code that changes an org or its members locks the org first."""

    async def add(self, org: Org, owner_id: str) -> None:
        """Store a new org with its owner."""
        ...

    async def memberships(self, user_id: str) -> Sequence[Membership]:
        """The person's orgs, their own org first."""
        ...

    async def membership(self, org_id: str, user_id: str, session_id: str = "") -> Membership | None:
        """One of the person's orgs; None for a person who is blocked, and for a session that was ended."""
        ...

    async def locked(self, org_id: str, user_id: str, session_id: str = "") -> Membership | None:
        """As `membership`, with the org locked until the transaction ends. Locks nothing if the person is no member."""
        ...

    async def shared(self, org_id: str, user_id: str) -> Membership | None:
        """As `locked`, but with a shared lock: it keeps the org as it is, and others can hold it too."""
        ...

    async def locked_for_others(self, org_id: str) -> Org | None:
        """Return an org, locked until the transaction ends, for a non-member: an invited person, or an operator."""
        ...

    async def hold(self, org_id: str) -> None:
        """Let nobody revoke tokens of an org until the transaction ends. A token issued after this call, based on what
        is read after this call, is then ended by any later revocation."""
        ...

    async def held_open(self, org_id: str) -> bool:
        """Hold an org, and return whether anybody may act in it."""
        ...

    async def restorable(self, org_id: str, now: datetime) -> bool:
        """Whether an org was deleted and can still be restored."""
        ...

    async def save(self, org: Org) -> None:
        """Store the org's name and deletion."""
        ...

    async def count_owned(self, user_id: str) -> int:
        """Count the orgs that the person owns beside their own. Locks the person, so that the count stays right.
        Nobody deletes the account until the transaction ends."""
        ...

    async def end_due(self, now: datetime, limit: int) -> Sequence[str]:
        """End for good the orgs that can no longer be restored, and return their ids."""
        ...


class ActingSessions(Protocol):
    """The orgs that sessions act in."""

    async def fall_back(self, org_id: str, user_id: str = "") -> None:
        """Let the sessions that act in the org, of all people or of one person, act in their person's own org."""
        ...


class PeopleTransaction(Protocol):
    """A transaction with people."""

    @property
    def people(self) -> PeopleStore: ...


class MembershipTransaction(Protocol):
    """A transaction with orgs."""

    @property
    def orgs(self) -> OrgStore: ...


class Transaction(MembershipTransaction, PeopleTransaction, Audited, Revoking, Protocol):
    """A transaction with everything that ending an org changes."""

    @property
    def sessions(self) -> ActingSessions: ...


class Orgs:
    """People and the orgs that they are members of. `delete_grace` is how long a deleted org can be restored."""

    def __init__(self, transactions: Transactions[Transaction], clock: Clock, delete_grace: timedelta) -> None:
        self._transactions = transactions
        self._clock = clock
        self._delete_grace = delete_grace
        self._emails = Together(self._read_emails)

    async def person(self, tx: PeopleTransaction, email: str, now: datetime) -> tuple[User, bool]:
        """Return the person with the address, and whether they are new. A new person is stored with their own org."""
        known = await tx.people.by_email(email)
        if known:
            return known, False
        user = User(new_id("usr"), email, new_id("org"))
        await tx.people.add(user, personal_org_name(email), now)
        return user, True

    async def email(self, principal: StandingPrincipal) -> str:
        """The caller's address; empty for a service account."""
        if principal.kind is not PrincipalKind.USER:
            return ""
        return await self._emails.ask(principal.subject)

    async def _read_emails(self, user_ids: Sequence[str]) -> Sequence[str]:
        async with self._transactions.autocommit() as tx:
            found = await tx.people.emails(user_ids)
        return [found.get(user_id, "") for user_id in user_ids]

    async def list(self, principal: StandingPrincipal) -> Sequence[Membership]:
        """The caller's orgs, their own org first. A service account is not a member of any org."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        async with self._transactions.autocommit() as tx:
            return await tx.orgs.memberships(principal.subject)

    async def get(self, principal: StandingPrincipal, org_id: str) -> Membership:
        """One of the caller's orgs. Raises Refusal `not_found`, `missing_scope`."""
        async with self._transactions.autocommit() as tx:
            return await reading(tx, principal, org_id, Scope.MEMBERS_READ)

    async def create(self, principal: StandingPrincipal, name: str, origin: Origin) -> Membership:
        """Create an org with the caller as its owner. Raises Refusal `missing_field`, `missing_scope`,
        `limit_reached`."""
        require_name(name)
        now = self._clock.now()
        made = Membership(Org(new_id("org"), name, personal=False, created_at=now), Role.OWNER)
        # A caller that may not act as an owner can't create an org: a service account, or a token with fewer scopes.
        _require(principal, made, Scope.ORGS_OWN)
        async with self._transactions.begin() as tx:
            await require_room_to_own(tx, principal.subject)
            await tx.orgs.add(made.org, principal.subject)
            await tx.audit.add(done(principal, Action.ORG_CREATED, origin, made.org.org_id), now)
        return made

    async def rename(self, principal: StandingPrincipal, org_id: str, name: str, origin: Origin) -> Membership:
        """Give an org another name. Raises Refusal `missing_field`, `not_found`, `missing_scope`, `org_scope_denied`,
        `org_deleted`."""
        require_name(name)
        async with self._transactions.begin() as tx:
            membership = await acting(tx, principal, org_id, Scope.ORGS_WRITE)
            require_open(membership.org)
            if name == membership.org.name:
                return membership
            renamed = replace(membership, org=replace(membership.org, name=name))
            await tx.orgs.save(renamed.org)
            await tx.audit.add(done(principal, Action.ORG_RENAMED, origin, org_id), self._clock.now())
        return renamed

    async def delete(self, principal: StandingPrincipal, org_id: str, origin: Origin) -> Membership:
        """Close an org for everybody until it is restored or gone. Raises Refusal as `rename`, and `personal_org`."""
        async with self._transactions.begin() as tx:
            membership = await acting(tx, principal, org_id, Scope.ORGS_OWN)
            now = self._clock.now()
            closed = replace(membership, org=deleted(membership.org, now, self._delete_grace))
            if closed == membership:
                return membership
            await tx.orgs.save(closed.org)
            await tx.sessions.fall_back(org_id)
            await tx.audit.add(done(principal, Action.ORG_DELETED, origin, org_id), now)
            await tx.revocations.add(Revocation.of_org(org_id, now), now)
        return closed

    async def restore(self, principal: StandingPrincipal, org_id: str, origin: Origin) -> Membership:
        """Open a deleted org again. Raises Refusal as `rename`."""
        async with self._transactions.begin() as tx:
            membership = await acting(tx, principal, org_id, Scope.ORGS_OWN)
            if membership.org.delete_at is None:
                return membership
            entry = done(principal, Action.ORG_RESTORED, origin, org_id)
            return replace(membership, org=await reopen(tx, membership.org, entry, self._clock.now()))

    async def sweep(self) -> None:
        """End the deleted orgs that can no longer be restored, a limited number at a time."""
        async with self._transactions.begin() as tx:
            now = self._clock.now()
            for org_id in await tx.orgs.end_due(now, MAX_ENDED_AT_A_TIME):
                await tx.audit.add(AuditEntry(Action.ORG_ENDED, Origin(), org_id=org_id, target=org_id), now)


async def acting(tx: MembershipTransaction, principal: StandingPrincipal, org_id: str, scope: Scope) -> Membership:
    """Return the caller's membership in an org, and lock the org. The role in it has to allow what needs `scope`.

    Whoever changes something of an org calls this in the transaction of the change: since the call was admitted, even
    while it waited for the lock, the caller may have lost the role, or the session may have been ended.

    Raises Refusal `not_found` for an org that isn't the caller's, `missing_scope`, `org_scope_denied`.
    """
    return _allowed(principal, await tx.orgs.locked(org_id, principal.subject, principal.session_id), scope)


async def reading(tx: MembershipTransaction, principal: StandingPrincipal, org_id: str, scope: Scope) -> Membership:
    """As `acting`, with nothing locked."""
    return _allowed(principal, await tx.orgs.membership(org_id, principal.subject), scope)


async def require_room_to_own(tx: Transaction, user_id: str, *, by_other: bool = False) -> None:
    """Check that the person may become an owner of one more org, and lock the person, so that this holds until the
    transaction ends. Lock the org first. `by_other`: somebody else makes the person an owner.

    Raises Refusal `limit_reached`, `token_revoked` as `require_account`.
    """
    owned = await tx.orgs.count_owned(user_id)
    await require_account(tx, user_id)
    if owned < MAX_OWNED_ORGS:
        return
    if by_other:
        message = f"the member is an owner of {MAX_OWNED_ORGS} orgs already; make another member an owner"
        raise Refusal("limit_reached", message, field="user_id")
    message = f"you are an owner of {MAX_OWNED_ORGS} orgs; leave some, or wait until deleted ones are gone"
    raise Refusal("limit_reached", message)


async def require_account(tx: PeopleTransaction, user_id: str) -> None:
    """Check that the account of somebody who is to get a place is not deleted, and keep it from being deleted until the
    transaction ends. Lock the org first. Raises Refusal `token_revoked`: it is the caller's, deleted a moment ago."""
    if not await tx.people.hold(user_id):
        raise Refusal("token_revoked", "the account is deleted; sign in again, with an account that is not")


async def reopen(tx: Transaction, org: Org, entry: AuditEntry, now: datetime) -> Org:
    """Open a deleted org again; the caller has locked it. `entry` says who did it."""
    opened = restored(org)
    await tx.orgs.save(opened)
    await tx.audit.add(entry, now)
    await tx.revocations.add(Revocation.of_restored_org(org.org_id), now)
    return opened


def done(
    principal: StandingPrincipal, action: Action, origin: Origin, org_id: str, target: str = "", reason: str = ""
) -> AuditEntry:
    """The record of what the caller did in an org, whatever org its token acts in. The default target is the org."""
    return replace(by(principal, action, origin, target or org_id, reason), org_id=org_id)


def _allowed(principal: StandingPrincipal, membership: Membership | None, scope: Scope) -> Membership:
    if membership is None:
        raise no_such_org()
    _require(principal, membership, scope)
    return membership


def _require(principal: StandingPrincipal, membership: Membership, scope: Scope) -> None:
    require(acting_as(principal, membership), Scoped(scope), OrgOwned(membership.org.org_id))
