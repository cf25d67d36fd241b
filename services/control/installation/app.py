"""Listing and ending people's sessions, and listing and restoring orgs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin
from services.control.blocks.app import BlockStore, named
from services.control.installation.domain import InstallationOrg, require_heir, require_restorable
from services.control.installation.limits import DEFAULT_PAGE
from services.control.members import app as members_app
from services.control.members.app import change_role
from services.control.members.domain import Member
from services.control.members.limits import MAX_MEMBERS
from services.control.orgs.app import reopen, require_room_to_own
from services.control.orgs.domain import require_shared
from services.control.policy.domain import Role
from services.control.sessions import app as sessions_app
from services.control.sessions.app import Sessions
from services.control.sessions.domain import Session
from services.control.transactions.app import Transactions


class InstallationOrgStore(Protocol):
    """All orgs."""

    async def get(self, org_id: str) -> InstallationOrg | None:
        """An org, gone or not."""
        ...

    async def page(self, after_org_id: str, limit: int, *, deleted: bool) -> Sequence[InstallationOrg]:
        """The first orgs after this one in the order of ids, without people's own orgs and those that are gone."""
        ...

    async def page_of(self, user_id: str, after_org_id: str, limit: int, *, deleted: bool) -> Sequence[InstallationOrg]:
        """The first of a person's orgs after this one, including the person's own."""
        ...


class SessionTransaction(sessions_app.Transaction, Protocol):
    """A transaction with people and their sessions."""

    @property
    def blocks(self) -> BlockStore: ...


class OrgTransaction(members_app.Transaction, Protocol):
    """A transaction with all orgs."""

    @property
    def blocks(self) -> BlockStore: ...
    @property
    def installation_orgs(self) -> InstallationOrgStore: ...


class InstallationSessions:
    """The sessions of people. Locks are taken in the order of blocks: person, sessions, and last revocations."""

    def __init__(self, transactions: Transactions[SessionTransaction], sessions: Sessions) -> None:
        self._transactions = transactions
        self._sessions = sessions

    async def list(self, who: str) -> tuple[str, Sequence[Session]]:
        """A person, by id or address, and the person's sessions, newest first. Raises Refusal `not_found`."""
        async with self._transactions.autocommit() as tx:
            user_id = await _person(tx.blocks, who)
            return user_id, await self._sessions.of_person(tx, user_id)

    async def revoke(self, who: str, session_id: str, origin: Origin) -> tuple[str, Sequence[str]]:
        """End a session of a person, or all with an empty id. Return the person, and the ids of the ended sessions.

        Raises Refusal `not_found`.
        """
        async with self._transactions.begin() as tx:
            user_id = await _person(tx.blocks, who)
            await tx.blocks.locked(user_id)  # so that no sign-in in the meantime is missed
            return user_id, await self._sessions.end_for_operator(tx, user_id, session_id, origin)


class InstallationOrgs:
    """All orgs, whoever their members are."""

    def __init__(self, transactions: Transactions[OrgTransaction], clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    async def page(
        self, who: str, size: int, after_org_id: str, *, deleted: bool
    ) -> tuple[Sequence[InstallationOrg], str]:
        """Orgs after one, and the id of the last if there are more: all orgs of a person, the person's own among them,
        or with an empty `who` those of everybody, without people's own orgs and those that are gone.

        Raises Refusal `not_found`.
        """
        limit = size or DEFAULT_PAGE
        async with self._transactions.autocommit() as tx:
            if who:
                user_id = await _person(tx.blocks, who)
                found = await tx.installation_orgs.page_of(user_id, after_org_id, limit + 1, deleted=deleted)
            else:
                found = await tx.installation_orgs.page(after_org_id, limit + 1, deleted=deleted)
        page = found[:limit]
        return page, page[-1].org.org_id if len(found) > limit else ""

    async def get(self, org_id: str) -> tuple[InstallationOrg, Sequence[Member]]:
        """An org and its members. Raises Refusal `not_found`."""
        async with self._transactions.autocommit() as tx:
            return await _org(tx, org_id), await tx.members.page(org_id, "", MAX_MEMBERS)

    async def restore(self, org_id: str, origin: Origin) -> InstallationOrg:
        """Restore a deleted org. Raises Refusal `not_found`; `org_deleted` for an org that is gone."""
        async with self._transactions.begin() as tx:
            org = await tx.orgs.locked_for_others(org_id)
            found = await _org(tx, org_id)
            require_restorable(found)
            if org is None or org.delete_at is None:
                return found
            entry = AuditEntry(Action.ORG_RESTORED, origin, OPERATOR, org_id, org_id)
            await reopen(tx, org, entry, self._clock.now())
            return await _org(tx, org_id)

    async def set_owner(self, org_id: str, who: str, origin: Origin) -> Member:
        """Make a member (by id or address) the owner of an org none of whose owners can act. Owners who are blocked
        stay owners.

        Raises Refusal `not_found`, `already_exists`, `invalid_value`, `personal_org`, `org_deleted`; `limit_reached`
        for a member who is an owner of too many orgs.
        """
        async with self._transactions.begin() as tx:
            org = await tx.orgs.locked_for_others(org_id)
            require_shared((await _org(tx, org_id)).org if org is None else org)
            user_id = await _person(tx.blocks, who)
            owners = await tx.members.count_other_owners(org_id, "")
            member = require_heir(await tx.members.get(org_id, user_id), owners)
            await require_room_to_own(tx, user_id, by_other=True)
            entry = AuditEntry(Action.MEMBER_ROLE_SET, origin, OPERATOR, org_id, user_id, Role.OWNER.value)
            await change_role(tx, org_id, member, Role.OWNER, entry, self._clock.now())
        return replace(member, role=Role.OWNER)


async def _person(people: BlockStore, who: str) -> str:
    """The id of the person with this id or address."""
    try:
        found = await named(people, who)
    except Refusal as refusal:
        raise Refusal(refusal.reason, refusal.message, field="person") from None
    if found is None or not found.is_person:
        raise Refusal("not_found", "there is no such person; give the id (usr_…) or the address", field="person")
    return found.subject


async def _org(tx: OrgTransaction, org_id: str) -> InstallationOrg:
    found = await tx.installation_orgs.get(org_id)
    if found is None:
        raise Refusal("not_found", "there is no such org; list the orgs", field="org_id")
    return found
