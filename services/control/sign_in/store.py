"""Sign-in codes and their rate limits in Postgres, the same for all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from oa_base.clock import ns_of, time_of
from oa_base.rate import Taken, take
from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.sign_in.domain.challenge import Challenge, Ended, Party
from services.control.sign_in.domain.shares import Share

_COLUMNS = "challenge_id, email, device_id, code_hash, created_at, guesses, ended"

LIVE = f"""
SELECT {_COLUMNS} FROM control.challenges WHERE email = $1 AND device_id = $2 AND ended IS NULL
ORDER BY created_at DESC LIMIT 1 FOR UPDATE"""  # noqa: S608
"""The newest challenge of an address and a device that has not ended, locked for a change."""
IS_BLOCKED = "SELECT blocked_at IS NOT NULL FROM control.users WHERE email = $1"
"""Whether a person is blocked; no row for an address without one."""
HOLD_PERSON = f"{IS_BLOCKED} FOR SHARE"
"""The same, and nobody can block the person until this transaction ends; a block after that finds its session."""
LOCKED = f"SELECT {_COLUMNS} FROM control.challenges WHERE challenge_id = $1 FOR UPDATE"  # noqa: S608
"""A challenge, locked for a change."""
PARTY = "SELECT email, device_id FROM control.challenges WHERE challenge_id = $1"
"""The address and the device of a challenge. The address's bucket is locked before the challenge is."""
ADD = """
INSERT INTO control.challenges (challenge_id, email, device_id, code_hash, created_at) VALUES ($1, $2, $3, $4, $5)"""
"""Stores a new challenge."""
SAVE = "UPDATE control.challenges SET guesses = $2, ended = $3 WHERE challenge_id = $1"
"""Stores the effect of a guess on a challenge."""
END = "UPDATE control.challenges SET ended = $2 WHERE challenge_id = $1 AND ended IS NULL"
"""Ends a challenge, unless it has ended."""
SWEEP_CHALLENGES = """
DELETE FROM control.challenges WHERE challenge_id = ANY(ARRAY(
    SELECT challenge_id FROM control.challenges WHERE created_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"""
"""Removes old challenges. A locked row is in use: it is skipped, and nobody waits for a sweep."""

LOCK_BUCKET = """
INSERT INTO control.rate_limits AS r (bucket, empty_at) VALUES ($1, $2)
ON CONFLICT (bucket) DO UPDATE SET empty_at = r.empty_at RETURNING empty_at"""
"""Reads a bucket, creating it if it doesn't exist. An insert that conflicts with the row waits for it and locks it, so
the value that is read is the one that is replaced."""
SAVE_BUCKET = "UPDATE control.rate_limits SET empty_at = $2 WHERE bucket = $1"
"""Stores a bucket after one was taken from it."""
RESET_BUCKET = "DELETE FROM control.rate_limits WHERE bucket = $1"
"""Gives back a bucket's room: a bucket without a row is empty."""
SWEEP_BUCKETS = """
DELETE FROM control.rate_limits WHERE bucket = ANY(ARRAY(
    SELECT bucket FROM control.rate_limits WHERE empty_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"""
"""Removes buckets that are empty again, except locked ones."""


class PostgresChallenges:
    """See `app.ChallengeStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def live(self, email: str, device_id: str) -> Challenge | None:
        return _challenge(await self._connection.fetchrow(LIVE, email, device_id))

    async def is_blocked(self, email: str) -> bool | None:
        blocked: bool | None = await self._connection.fetchval(IS_BLOCKED, email)
        return blocked

    async def holds_unblocked(self, email: str) -> bool:
        return not await self._connection.fetchval(HOLD_PERSON, email)

    async def party(self, challenge_id: str) -> Party | None:
        row = await self._connection.fetchrow(PARTY, challenge_id)
        return Party(row["email"], row["device_id"]) if row else None

    async def locked(self, challenge_id: str) -> Challenge | None:
        return _challenge(await self._connection.fetchrow(LOCKED, challenge_id))

    async def add(self, challenge: Challenge) -> None:
        await self._connection.execute(
            ADD,
            challenge.challenge_id,
            challenge.email,
            challenge.device_id,
            challenge.code_hash,
            challenge.created_at,
        )

    async def save(self, challenge: Challenge) -> None:
        await self._connection.execute(SAVE, challenge.challenge_id, challenge.guesses, challenge.ended)

    async def end(self, challenge_id: str, ended: Ended) -> None:
        await self._connection.execute(END, challenge_id, ended.value)

    async def sweep(self, created_before: datetime) -> None:
        await self._connection.execute(SWEEP_CHALLENGES, created_before, MAX_SWEPT_ROWS)


class PostgresRates:
    """See `app.RateStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def wait(self, shares: Sequence[Share], now: datetime) -> timedelta:
        waits = [(await self._taken(share, now)).wait_ns for share in shares]
        return timedelta(microseconds=-(-max(waits) // 1000))

    async def take(self, shares: Sequence[Share], now: datetime) -> None:
        for share in shares:
            full_at_ns = (await self._taken(share, now)).full_at_ns
            await self._connection.execute(SAVE_BUCKET, share.bucket, time_of(full_at_ns))

    async def _taken(self, share: Share, now: datetime) -> Taken:
        full_at = await self._connection.fetchval(LOCK_BUCKET, share.bucket, now)
        return take(share.rate, ns_of(full_at), ns_of(now))

    async def lock(self, bucket: str, now: datetime) -> None:
        await self._connection.fetchval(LOCK_BUCKET, bucket, now)

    async def reset(self, bucket: str) -> None:
        await self._connection.execute(RESET_BUCKET, bucket)

    async def sweep(self, now: datetime) -> None:
        await self._connection.execute(SWEEP_BUCKETS, now, MAX_SWEPT_ROWS)


def _challenge(row: asyncpg.Record | None) -> Challenge | None:
    if row is None:
        return None
    return Challenge(
        challenge_id=row["challenge_id"],
        email=row["email"],
        device_id=row["device_id"],
        code_hash=row["code_hash"],
        created_at=row["created_at"],
        guesses=row["guesses"],
        ended=row["ended"],
    )
