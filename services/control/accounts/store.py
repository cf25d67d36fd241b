"""Accounts in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.accounts.domain import Place
from services.control.orgs.domain import Org
from services.control.policy.domain import Role

PLACES = """
SELECT o.org_id, o.name, o.personal_of IS NOT NULL AS personal, o.created_at, o.delete_at, m.role,
    (SELECT count(*) FROM control.memberships x WHERE x.org_id = m.org_id AND x.user_id <> $1) AS others,
    (SELECT count(*) FROM control.memberships x JOIN control.users u USING (user_id)
     WHERE x.org_id = m.org_id AND x.user_id <> $1 AND x.role = 'owner' AND u.blocked_at IS NULL) AS other_owners
FROM control.memberships m JOIN control.orgs o USING (org_id) WHERE m.user_id = $1 ORDER BY m.org_id"""
"""The memberships of a person, with the other members that count."""
FORGET_CODES = "DELETE FROM control.challenges WHERE email = $1 AND ended IS NULL"
"""Removes the codes for an address that can still be used."""
FORGET_INVITATIONS = "DELETE FROM control.invitations WHERE email = $1"
"""Removes the invitations of an address."""
FORGET_MAILS = "DELETE FROM control.mails WHERE address = $1"
"""Removes what waits to be sent to an address."""
END_SESSIONS = """
WITH ending AS (SELECT session_id FROM control.sessions WHERE user_id = $1 ORDER BY session_id FOR UPDATE)
DELETE FROM control.sessions s USING ending e WHERE s.session_id = e.session_id"""
"""Removes the sessions of a person. Locks them in the same order as every statement that locks several sessions."""
END_KEYS = """
WITH ending AS (SELECT api_key_id FROM control.api_keys WHERE owner = $1 ORDER BY api_key_id FOR UPDATE)
DELETE FROM control.api_keys k USING ending e WHERE k.api_key_id = e.api_key_id"""
"""Removes the personal access tokens of a person."""
END_IDENTITIES = "DELETE FROM control.identities WHERE user_id = $1"
"""Lets providers' accounts open other accounts."""
END_MEMBERSHIPS = "DELETE FROM control.memberships WHERE user_id = $1"
"""Removes the person from all orgs."""
ERASE = "UPDATE control.users SET email = NULL, blocked_at = NULL, deleted_at = $2 WHERE user_id = $1"
"""Leaves what is no personal data."""


class PostgresAccounts:
    """See `app.AccountStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def places(self, user_id: str) -> Sequence[Place]:
        return [_place(row) for row in await self._connection.fetch(PLACES, user_id)]

    async def forget_address(self, email: str) -> None:
        await self._connection.execute(FORGET_CODES, email)
        await self._connection.execute(FORGET_INVITATIONS, email)
        await self._connection.execute(FORGET_MAILS, email)

    async def erase(self, user_id: str, now: datetime) -> None:
        await self._connection.execute(END_SESSIONS, user_id)
        await self._connection.execute(END_KEYS, user_id)
        await self._connection.execute(END_IDENTITIES, user_id)
        await self._connection.execute(END_MEMBERSHIPS, user_id)
        await self._connection.execute(ERASE, user_id, now)


def _place(row: asyncpg.Record) -> Place:
    org = Org(row["org_id"], row["name"], row["personal"], row["created_at"], row["delete_at"])
    return Place(org, Role(row["role"]), row["others"], row["other_owners"])
