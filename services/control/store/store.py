"""Transactions on the control schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from oa_platform.postgres.pool import Connection, Postgres
from services.control.store.audit import PgAudit
from services.control.store.challenges import PgChallenges
from services.control.store.limits import PgRates
from services.control.store.people import PgPeople
from services.control.store.service_accounts import PgServiceAccounts
from services.control.store.sessions import PgSessions

CHALLENGES_KEPT_FOR = timedelta(days=1)
SWEEP_BATCH = 10_000
"""Most rows of a table that one sweep removes."""
# A row that somebody holds is in use, so it is not old: it is passed over, and nobody waits for a sweep.
SWEEP_LIMITS = """
DELETE FROM control.rate_limits WHERE bucket IN (
    SELECT bucket FROM control.rate_limits WHERE empty_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""
SWEEP_CHALLENGES = """
DELETE FROM control.challenges WHERE challenge_id IN (
    SELECT challenge_id FROM control.challenges WHERE created_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""


class PgTransaction:
    """See `app.ports.Transaction`."""

    def __init__(self, connection: Connection) -> None:
        self.challenges = PgChallenges(connection)
        self.people = PgPeople(connection)
        self.sessions = PgSessions(connection)
        self.service_accounts = PgServiceAccounts(connection)
        self.rates = PgRates(connection)
        self.audit = PgAudit(connection)


class PgStore:
    """See `app.ports.Store`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PgTransaction]:
        """Commits when the block ends, rolls back when it raises."""
        async with self._postgres.transaction() as connection:
            yield PgTransaction(connection)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PgTransaction]:
        """For single statements: each by itself."""
        async with self._postgres.acquire() as connection:
            yield PgTransaction(connection)

    async def sweep(self, now: datetime) -> None:
        """Remove rate-limit buckets that say nothing any more, and challenges that are long over."""
        async with self._postgres.acquire() as connection:
            await connection.execute(SWEEP_LIMITS, now, SWEEP_BATCH)
            await connection.execute(SWEEP_CHALLENGES, now - CHALLENGES_KEPT_FOR, SWEEP_BATCH)
