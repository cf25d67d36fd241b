"""Sign-in codes in Postgres."""

from __future__ import annotations

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.domain.challenge import Challenge, Ended

_COLUMNS = "challenge_id, email, device_id, code_hash, created_at, guesses, ended"

LIVE = f"SELECT {_COLUMNS} FROM control.challenges WHERE email = $1 AND ended IS NULL FOR UPDATE"  # noqa: S608
LOCKED = f"SELECT {_COLUMNS} FROM control.challenges WHERE challenge_id = $1 FOR UPDATE"  # noqa: S608
EMAIL_OF = "SELECT email FROM control.challenges WHERE challenge_id = $1"
ADD = """
INSERT INTO control.challenges (challenge_id, email, device_id, code_hash, created_at) VALUES ($1, $2, $3, $4, $5)"""
SAVE = "UPDATE control.challenges SET guesses = $2, ended = $3 WHERE challenge_id = $1"
END = "UPDATE control.challenges SET ended = $2 WHERE challenge_id = $1 AND ended IS NULL"


class PgChallenges:
    """See `app.ports.Challenges`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def live(self, email: str) -> Challenge | None:
        return _challenge(await self._connection.fetchrow(LIVE, email))

    async def email_of(self, challenge_id: str) -> str | None:
        email: str | None = await self._connection.fetchval(EMAIL_OF, challenge_id)
        return email

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
        ended = challenge.ended.value if challenge.ended else None
        await self._connection.execute(SAVE, challenge.challenge_id, challenge.guesses, ended)

    async def end(self, challenge_id: str, ended: Ended) -> None:
        await self._connection.execute(END, challenge_id, ended.value)


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
        ended=Ended(row["ended"]) if row["ended"] else None,
    )
