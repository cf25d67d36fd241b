"""Users, orgs and memberships in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.orgs.domain import Membership, Org, User
from services.control.policy.domain import Role

BY_EMAIL = """
SELECT u.user_id, u.email, o.org_id FROM control.users u
JOIN control.orgs o ON o.personal_of = u.user_id WHERE u.email = $1"""
"""The person with an address, and their own org."""
ADD_USER = "INSERT INTO control.users (user_id, email, created_at) VALUES ($1, $2, $3)"
"""Stores a new person."""
ADD_ORG = "INSERT INTO control.orgs (org_id, name, personal_of, created_at) VALUES ($1, $2, $3, $4)"
"""Stores an org. If a person is given, it is that person's own org."""
ADD_OWNER = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, 'owner', $3)"
"""Makes a person the owner of a new org."""
EMAILS = "SELECT user_id, email FROM control.users WHERE user_id = ANY($1::text[]) AND email IS NOT NULL"
"""Addresses of people."""

HOLD_ACCOUNT = "SELECT 1 FROM control.users WHERE user_id = $1 AND deleted_at IS NULL FOR KEY SHARE"
"""Keeps an account from being deleted until the transaction ends. No row for a deleted one."""

_COLUMNS = "o.org_id, o.name, o.personal_of IS NOT NULL AS personal, o.created_at, o.delete_at"
MEMBERSHIPS = f"""
SELECT {_COLUMNS}, m.role FROM control.memberships m JOIN control.orgs o USING (org_id)
WHERE m.user_id = $1 ORDER BY personal DESC, o.name, o.org_id"""  # noqa: S608 - constants
"""The orgs of a person, their own org first."""
MEMBERSHIP = f"""
SELECT {_COLUMNS}, m.role FROM control.memberships m JOIN control.orgs o USING (org_id)
JOIN control.users u USING (user_id) WHERE m.org_id = $1 AND m.user_id = $2 AND u.blocked_at IS NULL
AND NOT EXISTS (SELECT 1 FROM control.sessions s WHERE s.session_id = $3 AND s.revoked_at IS NOT NULL)"""  # noqa: S608
"""One of a person's orgs. Since the call was admitted, operators may have blocked the person, or the session may have
been ended."""
_TOKENS = "control.tokens_lock($1)"
"""The lock between transactions that issue tokens of an org and those that revoke them. It can be shared, and taking it
writes nothing."""
LOCK = f"""
SELECT pg_advisory_xact_lock({_TOKENS}) FROM control.orgs WHERE org_id = $1
AND EXISTS (SELECT 1 FROM control.memberships m WHERE m.org_id = $1 AND m.user_id = $2)
FOR NO KEY UPDATE"""  # noqa: S608 - constants
"""Serializes changes of an org and its members, and keeps them from running while tokens of the org are issued. Locks
only for a member of the org."""
HOLD = f"SELECT pg_advisory_xact_lock_shared({_TOKENS})"
"""Lets nobody revoke tokens of an org until the transaction ends."""
IS_OPEN = "SELECT delete_at IS NULL FROM control.orgs WHERE org_id = $1"
"""Whether an org is not deleted."""
LOCK_FOR_OTHERS = "SELECT 1 FROM control.orgs WHERE org_id = $1 FOR NO KEY UPDATE"
"""Locks an org for somebody who is not a member: an invited person, or an operator."""
SHARE = """
SELECT 1 FROM control.orgs WHERE org_id = $1
AND EXISTS (SELECT 1 FROM control.memberships m WHERE m.org_id = $1 AND m.user_id = $2) FOR SHARE"""
"""Keeps an org and its members as they are until the transaction ends."""
GET = f"SELECT {_COLUMNS} FROM control.orgs o WHERE o.org_id = $1"  # noqa: S608
"""An org."""
RESTORABLE = "SELECT 1 FROM control.orgs WHERE org_id = $1 AND delete_at > $2"
"""An org that was deleted, if it can be restored."""
SAVE = "UPDATE control.orgs SET name = $2, delete_at = $3 WHERE org_id = $1"
"""Stores an org's name and deletion."""
LOCK_USER = "SELECT 1 FROM control.users WHERE user_id = $1 FOR NO KEY UPDATE"
"""Serializes the transactions that count a person's orgs."""
COUNT_OWNED = """
SELECT count(*) FROM control.memberships m JOIN control.orgs o USING (org_id)
WHERE m.user_id = $1 AND m.role = 'owner' AND o.personal_of IS NULL"""
"""The number of orgs that a person is an owner of, without their own org."""
TO_GO = """
SELECT org_id FROM control.orgs WHERE delete_at <= $1 AND gone_at IS NULL
ORDER BY delete_at LIMIT $2 FOR UPDATE SKIP LOCKED"""
"""Deleted orgs that can no longer be restored."""
DROP_MEMBERS = "DELETE FROM control.memberships WHERE org_id = ANY($1)"
"""Removes all members of orgs that are gone."""
GONE = "UPDATE control.orgs SET gone_at = $2, name = '' WHERE org_id = ANY($1)"
"""Ends orgs for good."""


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
        await self._connection.execute(ADD_OWNER, user.org_id, user.user_id, now)

    async def email(self, user_id: str) -> str:
        return (await self.emails([user_id])).get(user_id, "")

    async def emails(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        return {row["user_id"]: row["email"] for row in await self._connection.fetch(EMAILS, user_ids)}

    async def hold(self, user_id: str) -> bool:
        return await self._connection.fetchval(HOLD_ACCOUNT, user_id) is not None


class PostgresOrgs:
    """See `app.OrgStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, org: Org, owner_id: str) -> None:
        await self._connection.execute(ADD_ORG, org.org_id, org.name, None, org.created_at)
        await self._connection.execute(ADD_OWNER, org.org_id, owner_id, org.created_at)

    async def memberships(self, user_id: str) -> Sequence[Membership]:
        return [_membership(row) for row in await self._connection.fetch(MEMBERSHIPS, user_id)]

    async def membership(self, org_id: str, user_id: str, session_id: str = "") -> Membership | None:
        row = await self._connection.fetchrow(MEMBERSHIP, org_id, user_id, session_id)
        return _membership(row) if row else None

    async def locked(self, org_id: str, user_id: str, session_id: str = "") -> Membership | None:
        await self._connection.fetchval(LOCK, org_id, user_id)
        return await self.membership(org_id, user_id, session_id)

    async def shared(self, org_id: str, user_id: str) -> Membership | None:
        await self._connection.fetchval(SHARE, org_id, user_id)
        return await self.membership(org_id, user_id)

    async def locked_for_others(self, org_id: str) -> Org | None:
        await self._connection.fetchval(LOCK_FOR_OTHERS, org_id)
        row = await self._connection.fetchrow(GET, org_id)
        return _org(row) if row else None

    async def hold(self, org_id: str) -> None:
        await self._connection.fetchval(HOLD, org_id)

    async def held_open(self, org_id: str) -> bool:
        await self.hold(org_id)
        return bool(await self._connection.fetchval(IS_OPEN, org_id))

    async def restorable(self, org_id: str, now: datetime) -> bool:
        return bool(await self._connection.fetchval(RESTORABLE, org_id, now))

    async def save(self, org: Org) -> None:
        await self._connection.execute(SAVE, org.org_id, org.name, org.delete_at)

    async def count_owned(self, user_id: str) -> int:
        await self._connection.fetchval(LOCK_USER, user_id)
        return int(await self._connection.fetchval(COUNT_OWNED, user_id))

    async def end_due(self, now: datetime, limit: int) -> Sequence[str]:
        org_ids = [row["org_id"] for row in await self._connection.fetch(TO_GO, now, limit)]
        if org_ids:
            await self._connection.execute(DROP_MEMBERS, org_ids)
            await self._connection.execute(GONE, org_ids, now)
        return org_ids


def _org(row: asyncpg.Record) -> Org:
    return Org(row["org_id"], row["name"], row["personal"], row["created_at"], row["delete_at"])


def _membership(row: asyncpg.Record) -> Membership:
    return Membership(_org(row), Role(row["role"]))
