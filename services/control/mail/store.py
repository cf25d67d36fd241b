"""Waiting mail in Postgres, the same for all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.mail.domain.letters import Kind, Mail
from services.control.mail.limits import MAX_EXPIRED

ADD = """
INSERT INTO control.mails (mail_id, kind, address, about, created_at, due_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $5, $6)"""
"""Stores a mail that is due at once."""
DROP = "DELETE FROM control.mails WHERE about = $1"
"""Removes mail about something that is over."""
CLAIM = """
UPDATE control.mails SET due_at = $2, attempts = attempts + 1 WHERE mail_id = ANY(ARRAY(
    SELECT mail_id FROM control.mails WHERE due_at <= $1 AND expires_at > $1 AND kind = ANY($4)
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED))
RETURNING mail_id, kind, address, about, expires_at, attempts"""
"""Claims due mail for this replica until a given time. Skips mail that another replica is claiming now, and kinds that
only a newer release can write."""
REMOVE = "DELETE FROM control.mails WHERE mail_id = $1"
"""Removes a mail."""
POSTPONE = "UPDATE control.mails SET due_at = $2 WHERE mail_id = $1"
"""Sets when a mail is tried again."""
REMOVE_EXPIRED = """
WITH removed AS (
    DELETE FROM control.mails WHERE mail_id = ANY(ARRAY(
        SELECT mail_id FROM control.mails WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1)
SELECT count(*) FROM removed"""
"""Removes expired mail, and counts it."""
OLDEST = "SELECT min(created_at) FROM control.mails"
"""The time since which the oldest mail has waited."""


class PostgresMail:
    """See `app.MailStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, mail: Mail, now: datetime) -> None:
        await self._connection.execute(
            ADD, mail.mail_id, mail.kind.value, mail.address, mail.about, now, mail.expires_at
        )

    async def drop(self, about: str) -> None:
        await self._connection.execute(DROP, about)

    async def claim(self, now: datetime, until: datetime, limit: int) -> Sequence[Mail]:
        rows = await self._connection.fetch(CLAIM, now, until, limit, [kind.value for kind in Kind])
        return [
            Mail(row["mail_id"], Kind(row["kind"]), row["address"], row["about"], row["expires_at"], row["attempts"])
            for row in rows
        ]

    async def remove(self, mail_id: str) -> None:
        await self._connection.execute(REMOVE, mail_id)

    async def postpone(self, mail_id: str, due_at: datetime) -> None:
        await self._connection.execute(POSTPONE, mail_id, due_at)

    async def remove_expired(self, now: datetime) -> int:
        count: int = await self._connection.fetchval(REMOVE_EXPIRED, now, MAX_EXPIRED)
        return count

    async def oldest(self) -> datetime | None:
        created_at: datetime | None = await self._connection.fetchval(OLDEST)
        return created_at
