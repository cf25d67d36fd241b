"""Rate limits in Postgres, the same for all replicas."""

from __future__ import annotations

from datetime import datetime, timedelta

from oa_platform.postgres import Connection
from services.control.domain.rate import Limit, take

# An insert that meets the row waits for it and locks it, so the number that is read is the one that is replaced.
LOCK = """
INSERT INTO control.rate_limits AS r (bucket, empty_at) VALUES ($1, $2)
ON CONFLICT (bucket) DO UPDATE SET empty_at = r.empty_at RETURNING empty_at"""
SAVE = "UPDATE control.rate_limits SET empty_at = $2 WHERE bucket = $1"
RESET = "DELETE FROM control.rate_limits WHERE bucket = $1"


class PgRates:
    """See `app.ports.Rates`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def take(self, bucket: str, limit: Limit, now: datetime) -> timedelta | None:
        taken = take(limit, await self._connection.fetchval(LOCK, bucket, now), now)
        await self._connection.execute(SAVE, bucket, taken.empty_at)
        return taken.wait

    async def lock(self, bucket: str, now: datetime) -> None:
        await self._connection.fetchval(LOCK, bucket, now)

    async def reset(self, bucket: str) -> None:
        await self._connection.execute(RESET, bucket)
