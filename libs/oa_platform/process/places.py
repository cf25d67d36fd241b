"""The newest change of each place, in a service's own table: `subject`, `org_id`, `is_lost`, `position`, `changed_at`
and `heard_at`, with one row for each subject and org."""

from __future__ import annotations

from datetime import UTC, datetime

from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.postgres.pool import Connection

_REMEMBER = """
INSERT INTO {schema}.places AS known (subject, org_id, is_lost, position, changed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (subject, org_id) DO UPDATE
SET is_lost = excluded.is_lost, position = excluded.position, changed_at = excluded.changed_at,
    heard_at = clock_timestamp()
WHERE excluded.position > known.position OR excluded.changed_at > known.changed_at
RETURNING true
"""
"""Remembers a change that is newer than the known one. Its position says so, or its time if control's order was started
again from a backup, and positions come again."""


async def remember(connection: Connection, schema: str, change: Revocation) -> bool:
    """Remember a change of a place, unless a newer one of the place is known. Returns whether it was news."""
    is_lost = change.place_change is PlaceChange.LOST
    when = datetime.fromtimestamp(change.revoked_s, UTC)
    statement = _REMEMBER.format(schema=schema)
    return bool(await connection.fetchval(statement, change.subject, change.org_id, is_lost, change.position, when))
