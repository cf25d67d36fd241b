"""Ended accounts in Postgres."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres

ADD = "INSERT INTO runtime.ended_accounts (account_id) VALUES ($1) ON CONFLICT DO NOTHING"
"""Remembers an account."""


class PostgresEndedAccounts:
    """See `app.EndedAccountStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def add(self, account_id: str) -> None:
        """Remember an account for good."""
        async with self._postgres.acquire() as connection:
            await connection.execute(ADD, account_id)
