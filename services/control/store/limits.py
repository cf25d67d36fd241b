"""Rate limits in Postgres, the same for all replicas."""

from __future__ import annotations

from datetime import datetime, timedelta

from oa_base.clock import ns_of, time_of
from oa_base.rate import Rate, take
from oa_platform.postgres.pool import Connection

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

    async def take(self, bucket: str, rate: Rate, now: datetime) -> timedelta | None:
        full_at = await self._connection.fetchval(LOCK, bucket, now)
        taken = take(rate, ns_of(full_at), ns_of(now))
        await self._connection.execute(SAVE, bucket, time_of(taken.full_at_ns))
        return timedelta(microseconds=taken.wait_ns // 1000) or None

    async def lock(self, bucket: str, now: datetime) -> None:
        await self._connection.fetchval(LOCK, bucket, now)

    async def reset(self, bucket: str) -> None:
        await self._connection.execute(RESET, bucket)
