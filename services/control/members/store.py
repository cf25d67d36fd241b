"""Members in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.members.domain import Member
from services.control.policy.domain import Role

_SELECT = """
SELECT m.user_id, u.email, m.role, m.created_at, u.blocked_at IS NOT NULL AS blocked
FROM control.memberships m JOIN control.users u USING (user_id) WHERE m.org_id = $1"""
"""Selects members of an org. Statements add the condition."""

GET = f"{_SELECT} AND m.user_id = $2"
"""A member."""
PAGE = f"{_SELECT} AND m.user_id > $2 ORDER BY m.user_id LIMIT $3"
"""Members after a given one."""
HAS_ADDRESS = """
SELECT EXISTS (SELECT 1 FROM control.memberships m JOIN control.users u USING (user_id)
               WHERE m.org_id = $1 AND u.email = $2)"""
"""Whether an address belongs to a member."""
COUNT = "SELECT count(*) FROM control.memberships WHERE org_id = $1"
"""The number of members of an org."""
COUNT_OTHER_OWNERS = """
SELECT count(*) FROM control.memberships m JOIN control.users u USING (user_id)
WHERE m.org_id = $1 AND m.user_id <> $2 AND m.role = 'owner' AND u.blocked_at IS NULL"""
"""The number of owners of an org who can act, besides one person."""
ADD = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)"
"""Makes a person a member."""
SET_ROLE = "UPDATE control.memberships SET role = $3 WHERE org_id = $1 AND user_id = $2"
"""Gives a member a role."""
REMOVE = "DELETE FROM control.memberships WHERE org_id = $1 AND user_id = $2"
"""Ends a membership."""


class PostgresMembers:
    """See `app.MemberStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, org_id: str, user_id: str) -> Member | None:
        row = await self._connection.fetchrow(GET, org_id, user_id)
        return _member(row) if row else None

    async def page(self, org_id: str, after_user_id: str, limit: int) -> Sequence[Member]:
        return [_member(row) for row in await self._connection.fetch(PAGE, org_id, after_user_id, limit)]

    async def has_address(self, org_id: str, email: str) -> bool:
        known: bool = await self._connection.fetchval(HAS_ADDRESS, org_id, email)
        return known

    async def count(self, org_id: str) -> int:
        return int(await self._connection.fetchval(COUNT, org_id))

    async def count_other_owners(self, org_id: str, user_id: str) -> int:
        return int(await self._connection.fetchval(COUNT_OTHER_OWNERS, org_id, user_id))

    async def add(self, org_id: str, user_id: str, role: Role, now: datetime) -> None:
        await self._connection.execute(ADD, org_id, user_id, role.value, now)

    async def set_role(self, org_id: str, user_id: str, role: Role) -> None:
        await self._connection.execute(SET_ROLE, org_id, user_id, role.value)

    async def remove(self, org_id: str, user_id: str) -> None:
        await self._connection.execute(REMOVE, org_id, user_id)


def _member(row: asyncpg.Record) -> Member:
    return Member(row["user_id"], row["email"], Role(row["role"]), row["created_at"], row["blocked"])
