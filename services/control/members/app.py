"""Listing and changing the members of an org.

A transaction that changes members holds the org's lock, so that decisions about owners and roles are still valid when
they are stored. If it makes an owner, it locks that person after the org: a person owns a limited number of orgs. The
rights that a member loses are revoked in the same transaction, and the member's sessions leave the org.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.members.domain import (
    Member,
    has_place,
    loses,
    require_leave,
    require_removal,
    require_role_change,
)
from services.control.members.limits import DEFAULT_PAGE, MAX_MEMBERS
from services.control.orgs.app import Transaction as OrgTransaction
from services.control.orgs.app import acting, done, reading, require_account, require_room_to_own
from services.control.orgs.domain import Membership, require_shared
from services.control.policy.domain import Role, Scope, StandingPrincipal
from services.control.revocations.domain import PlaceChange, Revocation
from services.control.transactions.app import Transactions

ROLE_LOWERED = "role_lowered"
ROLE_RAISED = "role_raised"
MEMBER_JOINED = "member_joined"
MEMBER_REMOVED = "member_removed"
MEMBER_LEFT = "member_left"


class MemberStore(Protocol):
    """The members of orgs."""

    async def get(self, org_id: str, user_id: str) -> Member | None:
        """A member."""
        ...

    async def page(self, org_id: str, after_user_id: str, limit: int) -> Sequence[Member]:
        """The first members after this one in the order of user ids."""
        ...

    async def has_address(self, org_id: str, email: str) -> bool:
        """Whether the address belongs to a member."""
        ...

    async def count(self, org_id: str) -> int:
        """The number of members."""
        ...

    async def count_other_owners(self, org_id: str, user_id: str) -> int:
        """The number of owners besides this person. An owner whom operators keep out does not count."""
        ...

    async def add(self, org_id: str, user_id: str, role: Role, now: datetime) -> None:
        """Make a person a member."""
        ...

    async def set_role(self, org_id: str, user_id: str, role: Role) -> None:
        """Give a member another role."""
        ...

    async def remove(self, org_id: str, user_id: str) -> None:
        """End a membership."""
        ...


class Transaction(OrgTransaction, Protocol):
    """A transaction with members."""

    @property
    def members(self) -> MemberStore: ...


class Members:
    """The members of the caller's orgs."""

    def __init__(self, transactions: Transactions[Transaction], clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    async def page(
        self, principal: StandingPrincipal, org_id: str, size: int, after_user_id: str
    ) -> tuple[Sequence[Member], str]:
        """Members after one, and the id of the last if there are more. Raises Refusal `not_found`, `missing_scope`."""
        limit = size or DEFAULT_PAGE
        async with self._transactions.autocommit() as tx:
            await reading(tx, principal, org_id, Scope.MEMBERS_READ)
            found = await tx.members.page(org_id, after_user_id, limit + 1)
        page = found[:limit]
        return page, page[-1].user_id if len(found) > limit else ""

    async def set_role(
        self, principal: StandingPrincipal, org_id: str, user_id: str, role: Role, origin: Origin
    ) -> Member:
        """Give a member another role. Raises Refusal `not_found`, `personal_org`, `org_deleted`, `org_scope_denied`,
        `missing_scope`, `last_owner`; `limit_reached` for a member who is an owner of too many orgs."""
        async with self._transactions.begin() as tx:
            mine, member = await self._changing(tx, principal, org_id, user_id)
            others = await tx.members.count_other_owners(org_id, user_id)
            require_role_change(mine.role, member.role, role, others, org_id)
            if role is member.role:
                return member
            if role is Role.OWNER:
                await require_room_to_own(tx, user_id, by_other=True)
            now = self._clock.now()
            entry = done(principal, Action.MEMBER_ROLE_SET, origin, org_id, user_id, role.value)
            await change_role(tx, org_id, member, role, entry, now)
        return replace(member, role=role)

    async def remove(self, principal: StandingPrincipal, org_id: str, user_id: str, origin: Origin) -> None:
        """End another member's membership. Raises Refusal as `set_role`; `invalid_value` for the caller's own."""
        if user_id == principal.subject:
            raise Refusal("invalid_value", "this is you; leave the org instead", field="user_id")
        async with self._transactions.begin() as tx:
            mine, member = await self._changing(tx, principal, org_id, user_id)
            require_removal(mine.role, member.role, await tx.members.count_other_owners(org_id, user_id), org_id)
            now = self._clock.now()
            await tx.audit.add(done(principal, Action.MEMBER_REMOVED, origin, org_id, user_id), now)
            await _end(tx, org_id, user_id, MEMBER_REMOVED, now)

    async def leave(self, principal: StandingPrincipal, org_id: str, origin: Origin) -> None:
        """End the caller's own membership. Raises Refusal `not_found`, `personal_org`, `org_deleted`, `last_owner`."""
        async with self._transactions.begin() as tx:
            # Leaving needs no right, but the token has to have a scope for members.
            mine = await acting(tx, principal, org_id, Scope.MEMBERS_READ)
            require_shared(mine.org)
            require_leave(mine.role, await tx.members.count_other_owners(org_id, principal.subject))
            now = self._clock.now()
            await tx.audit.add(done(principal, Action.MEMBER_LEFT, origin, org_id, principal.subject), now)
            await _end(tx, org_id, principal.subject, MEMBER_LEFT, now)

    async def transfer(self, principal: StandingPrincipal, org_id: str, user_id: str, origin: Origin) -> Member:
        """Make a member the owner and the caller an admin. Raises Refusal as `set_role`."""
        if user_id == principal.subject:
            raise Refusal("invalid_value", "this is you; name another member", field="user_id")
        async with self._transactions.begin() as tx:
            mine = await acting(tx, principal, org_id, Scope.ORGS_OWN)
            member = await _member(tx, mine, user_id)
            require_leave(mine.role, await tx.members.count_other_owners(org_id, principal.subject), successor=member)
            if member.role is not Role.OWNER:
                await require_room_to_own(tx, user_id, by_other=True)
            now = self._clock.now()
            await tx.members.set_role(org_id, user_id, Role.OWNER)
            await tx.members.set_role(org_id, principal.subject, Role.ADMIN)
            await tx.audit.add(done(principal, Action.OWNERSHIP_TRANSFERRED, origin, org_id, user_id), now)
            await _tell_role(tx, org_id, member, Role.OWNER, now)
            await tx.revocations.add(Revocation.of_member(principal.subject, org_id, ROLE_LOWERED, now), now)
        return replace(member, role=Role.OWNER)

    async def _changing(
        self, tx: Transaction, principal: StandingPrincipal, org_id: str, user_id: str
    ) -> tuple[Membership, Member]:
        mine = await acting(tx, principal, org_id, Scope.MEMBERS_WRITE)
        return mine, await _member(tx, mine, user_id)


async def change_role(
    tx: Transaction, org_id: str, member: Member, role: Role, entry: AuditEntry, now: datetime
) -> None:
    """Give a member of a locked org another role, with its record in the audit log. Call it last in a transaction."""
    await tx.members.set_role(org_id, member.user_id, role)
    await tx.audit.add(entry, now)
    await _tell_role(tx, org_id, member, role, now)


async def join(tx: Transaction, org_id: str, user_id: str, role: Role, now: datetime) -> Role:
    """Make a person a member of a locked org. Return the person's role: the present one for an existing member.

    Raises Refusal `limit_reached`, `token_revoked` for an account that was deleted a moment ago.
    """
    if known := await tx.members.get(org_id, user_id):
        return known.role
    await require_account(tx, user_id)
    if await tx.members.count(org_id) >= MAX_MEMBERS:
        raise Refusal("limit_reached", f"the org has {MAX_MEMBERS} members; ask an admin to remove some")
    if role is Role.OWNER:
        await require_room_to_own(tx, user_id)
    await tx.members.add(org_id, user_id, role, now)
    return role


async def tell_joined(tx: Transaction, org_id: str, user_id: str, role: Role, now: datetime) -> None:
    """Announce that a person who joined has a place, which may have been lost before. Call it last in a transaction."""
    if has_place(role):
        await tx.revocations.add(Revocation.of_place(user_id, org_id, MEMBER_JOINED), now)


async def _member(tx: Transaction, mine: Membership, user_id: str) -> Member:
    require_shared(mine.org)
    member = await tx.members.get(mine.org.org_id, user_id)
    if member is None:
        raise Refusal("not_found", "there is no such member; list the members of the org", field="user_id")
    return member


async def _end(tx: Transaction, org_id: str, user_id: str, reason: str, now: datetime) -> None:
    await tx.members.remove(org_id, user_id)
    await tx.sessions.fall_back(org_id, user_id)
    await tx.revocations.add(Revocation.of_member(user_id, org_id, reason, now, PlaceChange.LOST), now)


async def _tell_role(tx: Transaction, org_id: str, member: Member, role: Role, now: datetime) -> None:
    """Revoke the rights that the member loses with the role, and announce a change of the member's place."""
    if loses(member.role, role):
        change = PlaceChange.NONE if has_place(role) else PlaceChange.LOST
        await tx.revocations.add(Revocation.of_member(member.user_id, org_id, ROLE_LOWERED, now, change), now)
    elif has_place(role) and not has_place(member.role):
        await tx.revocations.add(Revocation.of_place(member.user_id, org_id, ROLE_RAISED), now)
