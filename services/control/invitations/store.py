"""Invitations in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.invitations.domain.invitation import Invitation, Made, Shown
from services.control.invitations.limits import MAX_OPEN
from services.control.policy.domain import Role

_COLUMNS = """i.invitation_id, i.org_id, i.email, i.role, i.invited_by, i.created_at, i.sent_at, i.expires_at,
    i.mails, i.ended"""

GET = f"SELECT {_COLUMNS} FROM control.invitations i WHERE invitation_id = $1"  # noqa: S608 - constants
"""An invitation."""
LOCKED = f"{GET} FOR UPDATE"
"""An invitation, for changing it."""
_OPEN = f"""
SELECT {_COLUMNS}, o.name AS org_name, COALESCE(u.email, '') AS inviter_email
FROM control.invitations i JOIN control.orgs o USING (org_id)
LEFT JOIN control.memberships m ON m.org_id = i.org_id AND m.user_id = i.invited_by
LEFT JOIN control.users u ON u.user_id = m.user_id
WHERE i.ended IS NULL AND i.expires_at > $2"""  # noqa: S608
"""Selects invitations that can be accepted. Statements add the condition."""
OPEN_OF_ORG = f"{_OPEN} AND i.org_id = $1 ORDER BY i.created_at DESC, i.invitation_id DESC LIMIT $3"
"""The open invitations of an org."""
OPEN_OF_ADDRESS = f"""{_OPEN} AND i.email = $1 AND o.delete_at IS NULL
AND u.blocked_at IS NULL AND (m.role = 'owner' OR m.role = 'admin' AND i.role <> 'owner')
ORDER BY i.created_at DESC, i.invitation_id DESC LIMIT $3"""
"""The open invitations to an address whose inviters may still invite so. Keep it as `domain.require_inviter`."""
LOCK_ADDRESS = "SELECT pg_advisory_xact_lock(hashtextextended('invite:' || $1, 0))"
"""Makes transactions that count an address's invitations run one after the other."""
COUNTS = """
SELECT (SELECT count(*) FROM control.invitations
        WHERE org_id = $1 AND ended IS NULL AND expires_at > $3 AND email <> $2) AS open,
       (SELECT count(*) FROM control.invitations WHERE org_id = $1 AND created_at > $4) AS of_org_in_hour,
       (SELECT count(*) FROM control.invitations WHERE email = $2 AND created_at > $5) AS to_address_in_day,
       (SELECT count(*) FROM control.invitations
        WHERE email = $2 AND created_at > $5 AND invited_by = $6) AS to_address_by_one_in_day"""
"""The numbers of invitations that count against the limits."""
REPLACE = """
UPDATE control.invitations SET ended = 'replaced' WHERE org_id = $1 AND email = $2 AND ended IS NULL
RETURNING invitation_id"""
"""Ends the unanswered invitation of an address into an org."""
ADD = """
INSERT INTO control.invitations
    (invitation_id, org_id, email, role, invited_by, created_at, sent_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7)"""
"""Stores a new invitation."""
SAVE = """
UPDATE control.invitations SET invited_by = $2, sent_at = $3, expires_at = $4, mails = $5, ended = $6
WHERE invitation_id = $1"""
"""Stores the changes of an invitation."""
SWEEP = """
DELETE FROM control.invitations WHERE invitation_id = ANY(ARRAY(
    SELECT invitation_id FROM control.invitations WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"""
"""Removes old invitations, except those that another transaction has locked."""


class PostgresInvitations:
    """See `app.InvitationStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, invitation_id: str) -> Invitation | None:
        return _invitation(await self._connection.fetchrow(GET, invitation_id))

    async def locked(self, invitation_id: str) -> Invitation | None:
        return _invitation(await self._connection.fetchrow(LOCKED, invitation_id))

    async def made(self, org_id: str, email: str, invited_by: str, now: datetime) -> Made:
        await self._connection.fetchval(LOCK_ADDRESS, email)
        hour, day = now - timedelta(hours=1), now - timedelta(days=1)
        row = await self._connection.fetchrow(COUNTS, org_id, email, now, hour, day, invited_by)
        assert row is not None
        return Made(**dict(row))

    async def replace(self, org_id: str, email: str) -> str:
        return await self._connection.fetchval(REPLACE, org_id, email) or ""

    async def add(self, invitation: Invitation) -> None:
        await self._connection.execute(
            ADD,
            invitation.invitation_id,
            invitation.org_id,
            invitation.email,
            invitation.role.value,
            invitation.invited_by,
            invitation.created_at,
            invitation.expires_at,
        )

    async def save(self, invitation: Invitation) -> None:
        await self._connection.execute(
            SAVE,
            invitation.invitation_id,
            invitation.invited_by,
            invitation.sent_at,
            invitation.expires_at,
            invitation.mails,
            invitation.ended,
        )

    async def open_of_org(self, org_id: str, now: datetime) -> Sequence[Shown]:
        return [_shown(row) for row in await self._connection.fetch(OPEN_OF_ORG, org_id, now, MAX_OPEN)]

    async def open_of_address(self, email: str, now: datetime) -> Sequence[Shown]:
        return [_shown(row) for row in await self._connection.fetch(OPEN_OF_ADDRESS, email, now, MAX_OPEN)]

    async def sweep(self, expired_before: datetime) -> None:
        await self._connection.execute(SWEEP, expired_before, MAX_SWEPT_ROWS)


def _invitation(row: asyncpg.Record | None) -> Invitation | None:
    return _of_row(row) if row else None


def _shown(row: asyncpg.Record) -> Shown:
    return Shown(_of_row(row), row["org_name"], row["inviter_email"])


def _of_row(row: asyncpg.Record) -> Invitation:
    return Invitation(
        invitation_id=row["invitation_id"],
        org_id=row["org_id"],
        email=row["email"],
        role=Role(row["role"]),
        invited_by=row["invited_by"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        expires_at=row["expires_at"],
        mails=row["mails"],
        ended=row["ended"],
    )
