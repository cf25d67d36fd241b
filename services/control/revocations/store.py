"""Revocations in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.listen import Connection as ListeningConnection
from oa_platform.postgres.listen import Listener, told_number
from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.revocations.app import RevocationFeed
from services.control.revocations.domain import PlaceChange, Recorded, Revocation
from services.control.revocations.limits import MAX_LATEST_EVENTS

CHANNEL = "control_revocations"

ADD = f"""
WITH newest AS (
    (SELECT occurred_at FROM control.audit_events WHERE $4::timestamptz > 'epoch' AND $2 <> '' AND actor = $2
     ORDER BY audit_id DESC LIMIT $8)
    UNION ALL
    (SELECT occurred_at FROM control.audit_events WHERE $4::timestamptz > 'epoch' AND $2 = '' AND org_id = $3
     ORDER BY audit_id DESC LIMIT $8)
), ahead AS (
    SELECT max(occurred_at) + interval '1 microsecond' AS occurred_before FROM newest
    WHERE occurred_at > $4 AND occurred_at <= $4 + $9::interval
), place AS (
    UPDATE control.revocation_head SET position = position + 1 RETURNING position
), stored AS (
    INSERT INTO control.revocations (position, session_id, subject, org_id, issued_before, revoked_at, reason,
        place_change)
    SELECT position, $1, $2, $3, GREATEST($4, occurred_before), $5, $6, $7 FROM place CROSS JOIN ahead
    RETURNING position
)
SELECT pg_notify('{CHANNEL}', position::text) FROM stored"""  # noqa: S608 - constants
"""Stores a revocation at the next position, and tells all replicas once that is committed. A replica whose clock is
ahead may have issued tokens whose time is later than that of the revocation: the audit log has them, with their times,
because they were recorded before the locks of the revocation were taken."""
HEAD = "SELECT position FROM control.revocation_head"
"""The newest position."""
AFTER = """
SELECT position, session_id, subject, org_id, issued_before, revoked_at, reason, place_change
FROM control.revocations WHERE position > $1 ORDER BY position LIMIT $2"""
"""What follows on a position."""
SWEEP = """
DELETE FROM control.revocations WHERE position = ANY(ARRAY(
    SELECT position FROM control.revocations WHERE revoked_at < $1 ORDER BY revoked_at LIMIT $2))"""
"""Removes the oldest. The head stays: positions never come twice."""


def listener(settings: DatabaseSettings, feed: RevocationFeed, interval_s: float) -> Listener:
    """Brings word of what any replica commits to `feed`."""

    async def look(connection: ListeningConnection) -> None:
        known = feed.head
        feed.looked(known, int(await connection.fetchval(HEAD)))

    def heard(_: str, position: str) -> None:
        if (number := told_number(position)) is not None:
            feed.word(number)

    return Listener(settings, "control", [CHANNEL], on_notify=heard, look=look, interval_s=interval_s)


class PostgresRevocations:
    """See `app.RevocationStore`."""

    def __init__(self, connection: Connection, max_clock_lead: timedelta) -> None:
        self._connection = connection
        self._max_clock_lead = max_clock_lead

    async def add(self, revocation: Revocation, now: datetime) -> None:
        await self._connection.execute(
            ADD,
            revocation.session_id,
            revocation.subject,
            revocation.org_id,
            revocation.issued_before,
            now,
            revocation.reason,
            revocation.place_change.value,
            MAX_LATEST_EVENTS,
            self._max_clock_lead,
        )

    async def head(self) -> int:
        return int(await self._connection.fetchval(HEAD))

    async def after(self, position: int, limit: int) -> Sequence[Recorded]:
        rows = await self._connection.fetch(AFTER, position, limit)
        return [Recorded(row["position"], row["revoked_at"], _revocation(row)) for row in rows]

    async def sweep(self, revoked_before: datetime) -> None:
        await self._connection.execute(SWEEP, revoked_before, MAX_SWEPT_ROWS)


def _revocation(row: asyncpg.Record) -> Revocation:
    names = row["session_id"], row["subject"], row["org_id"]
    return Revocation(row["reason"], *names, row["issued_before"], PlaceChange(row["place_change"]))
