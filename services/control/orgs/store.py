"""Users, orgs and memberships in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.orgs.domain import Membership, User
from services.control.policy.domain import Role

BY_EMAIL = """
SELECT u.user_id, u.email, o.org_id FROM control.users u
JOIN control.orgs o ON o.personal_of = u.user_id WHERE u.email = $1"""
"""The person with an address, and its own org."""
ADD_USER = "INSERT INTO control.users (user_id, email, created_at) VALUES ($1, $2, $3)"
"""Stores a new person."""
ADD_ORG = "INSERT INTO control.orgs (org_id, name, personal_of, created_at) VALUES ($1, $2, $3, $4)"
"""Stores a person's own org."""
ADD_MEMBER = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)"
"""Makes a person a member of an org."""
EMAIL = "SELECT email FROM control.users WHERE user_id = $1"
"""A person's address."""
MEMBERSHIPS = """
SELECT o.org_id, o.name, o.personal_of IS NOT DISTINCT FROM m.user_id AS personal, m.role
FROM control.memberships m JOIN control.orgs o USING (org_id)
WHERE m.user_id = $1 ORDER BY personal DESC, o.name, o.org_id"""
"""The orgs of a person, the own one first."""


class PostgresPeople:
    """See `app.PeopleStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def by_email(self, email: str) -> User | None:
        row = await self._connection.fetchrow(BY_EMAIL, email)
        return User(row["user_id"], row["email"], row["org_id"]) if row else None

    async def add(self, user: User, org_name: str, now: datetime) -> None:
        await self._connection.execute(ADD_USER, user.user_id, user.email, now)
        await self._connection.execute(ADD_ORG, user.org_id, org_name, user.user_id, now)
        await self._connection.execute(ADD_MEMBER, user.org_id, user.user_id, Role.OWNER.value, now)

    async def email(self, user_id: str) -> str:
        return await self._connection.fetchval(EMAIL, user_id) or ""

    async def memberships(self, user_id: str) -> Sequence[Membership]:
        rows = await self._connection.fetch(MEMBERSHIPS, user_id)
        return [Membership(row["org_id"], row["name"], row["personal"], Role(row["role"])) for row in rows]
