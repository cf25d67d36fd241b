"""People and their orgs: who signs in for the first time, and what orgs somebody is a member of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from oa_base.identity import PrincipalKind
from oa_platform.system.ids import new_id
from services.control.orgs.domain import Membership, User, personal_org_name
from services.control.policy.domain import StandingPrincipal
from services.control.transactions.app import Transactions


class PeopleStore(Protocol):
    """Users, orgs and memberships."""

    async def by_email(self, email: str) -> User | None:
        """The person with the address."""
        ...

    async def add(self, user: User, org_name: str, now: datetime) -> None:
        """Store a new person with an org of its own, as its owner."""
        ...

    async def email(self, user_id: str) -> str:
        """The person's address, empty if there is no such person."""
        ...

    async def memberships(self, user_id: str) -> Sequence[Membership]:
        """The person's orgs, the own one first."""
        ...


class Transaction(Protocol):
    """A transaction with people."""

    @property
    def people(self) -> PeopleStore: ...


class Orgs:
    """People and the orgs that they are members of."""

    def __init__(self, transactions: Transactions[Transaction]) -> None:
        self._transactions = transactions

    async def list(self, principal: StandingPrincipal) -> Sequence[Membership]:
        """The caller's orgs, the own one first. A service account is no member of any."""
        if principal.kind is not PrincipalKind.USER:
            return ()
        async with self._transactions.autocommit() as tx:
            return await tx.people.memberships(principal.subject)

    async def email(self, principal: StandingPrincipal) -> str:
        """The caller's address; empty for a service account."""
        if principal.kind is not PrincipalKind.USER:
            return ""
        async with self._transactions.autocommit() as tx:
            return await tx.people.email(principal.subject)

    async def person(self, tx: Transaction, email: str, now: datetime) -> tuple[User, bool]:
        """The person with the address, and whether it is new: the first time, the person and its own org are made."""
        known = await tx.people.by_email(email)
        if known:
            return known, False
        user = User(new_id("usr"), email, new_id("org"))
        await tx.people.add(user, personal_org_name(email), now)
        return user, True
