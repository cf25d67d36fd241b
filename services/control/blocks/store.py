"""Blocks in Postgres."""

from __future__ import annotations

from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.blocks.domain import Subject
from services.control.sessions.domain import SESSION_IDLE_TTL, SESSION_MAX_TTL

_PERSON = f"""
SELECT u.user_id AS subject, coalesce(u.email, '') AS name, o.org_id, u.blocked_at, u.deleted_at,
    (SELECT count(*) FROM control.sessions s WHERE s.user_id = u.user_id AND s.revoked_at IS NULL
        AND s.refreshed_at > now() - interval '{SESSION_IDLE_TTL.days} days'
        AND coalesce(s.signed_in_again_at, s.created_at) > now() - interval '{SESSION_MAX_TTL.days} days'
    ) AS live_sessions,
    (SELECT count(*) FROM control.api_keys k WHERE k.owner = u.user_id AND k.revoked_at IS NULL) AS live_keys
FROM control.users u JOIN control.orgs o ON o.personal_of = u.user_id"""  # noqa: S608 - constants
"""Selects people. Statements add the condition."""
BY_EMAIL = f"{_PERSON} WHERE u.email = $1"
"""The person with an address."""
PERSON = f"{_PERSON} WHERE u.user_id = $1"
"""A person."""
ACCOUNT = """
SELECT a.service_account_id AS subject, a.name, a.org_id, a.blocked_at, 0 AS live_sessions,
    (SELECT count(*) FROM control.api_keys k WHERE k.owner = a.service_account_id AND k.revoked_at IS NULL) AS live_keys
FROM control.service_accounts a WHERE a.service_account_id = $1"""
"""A service account."""
LOCK = """
SELECT (SELECT user_id FROM control.users WHERE user_id = $1 FOR UPDATE),
       (SELECT service_account_id FROM control.service_accounts WHERE service_account_id = $1 FOR UPDATE)"""
"""Waits for transactions that are letting the subject in. Later ones wait for this transaction."""
BLOCK_PERSON = "UPDATE control.users SET blocked_at = $2 WHERE user_id = $1"
"""Sets or removes a person's block."""
BLOCK_ACCOUNT = "UPDATE control.service_accounts SET blocked_at = $2 WHERE service_account_id = $1"
"""Sets or removes a service account's block."""


class PostgresBlocks:
    """See `app.BlockStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def by_email(self, email: str) -> Subject | None:
        return await self._subject(BY_EMAIL, email)

    async def get(self, subject: str) -> Subject | None:
        return await self._subject(PERSON, subject) or await self._subject(ACCOUNT, subject)

    async def locked(self, subject: str) -> Subject | None:
        await self._connection.fetchrow(LOCK, subject)
        return await self.get(subject)

    async def set_block(self, subject: Subject, blocked_at: datetime | None) -> None:
        statement = BLOCK_PERSON if subject.is_person else BLOCK_ACCOUNT
        await self._connection.execute(statement, subject.subject, blocked_at)

    async def _subject(self, statement: str, key: str) -> Subject | None:
        row = await self._connection.fetchrow(statement, key)
        return Subject(**dict(row)) if row else None
