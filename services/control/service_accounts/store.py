"""Service accounts in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.service_accounts.domain import ServiceAccount
from services.control.service_accounts.limits import MAX_LISTED

_SELECT = "SELECT service_account_id, org_id, name, created_at, revoked_at, blocked_at FROM control.service_accounts"
"""Selects accounts. Statements add the condition."""

ADD = """
INSERT INTO control.service_accounts (service_account_id, org_id, name, created_by, created_at)
VALUES ($1, $2, $3, $4, $5)"""
"""Stores a new account."""
KEEP_KEY = "UPDATE control.service_accounts SET key_hash = $2 WHERE service_account_id = $1"
"""Stores a key where the previous release looks for an account's key."""
_ORG_IS_OPEN = "(SELECT o.delete_at IS NULL FROM control.orgs o WHERE o.org_id = service_accounts.org_id)"
"""An account of a deleted org counts as missing until the org is restored."""
GET = f"{_SELECT} WHERE service_account_id = $1 AND {_ORG_IS_OPEN}"
"""An account as it is now."""
LOCKED = f"{_SELECT} WHERE service_account_id = $1 FOR UPDATE"
"""An account, locked for a change."""
LISTED = f"""
SELECT * FROM (
    {_SELECT} WHERE org_id = $1 ORDER BY revoked_at IS NOT NULL, created_at DESC, service_account_id DESC LIMIT $2
) AS listed ORDER BY created_at DESC, service_account_id DESC"""  # noqa: S608 - constants
"""The newest accounts of an org. Those that have ended take up only the room that the others leave."""
COUNT_LIVE = "SELECT count(*) FROM control.service_accounts WHERE org_id = $1 AND revoked_at IS NULL"
"""The number of accounts of an org that can be used."""
REVOKE = """
UPDATE control.service_accounts SET revoked_at = $2 WHERE service_account_id = $1 AND revoked_at IS NULL"""
"""Ends an account, unless it has ended."""

SWEEP = """
WITH page AS (
    SELECT service_account_id FROM control.service_accounts
    WHERE service_account_id > $1 ORDER BY service_account_id LIMIT $3
), gone AS (
    DELETE FROM control.service_accounts WHERE service_account_id = ANY(ARRAY(
        SELECT a.service_account_id FROM control.service_accounts a JOIN control.orgs o USING (org_id)
        WHERE a.service_account_id = ANY(ARRAY(SELECT service_account_id FROM page))
          AND (o.gone_at < $2 OR a.revoked_at < $2)
        FOR UPDATE OF a SKIP LOCKED))
    RETURNING service_account_id
), keys AS (
    DELETE FROM control.api_keys WHERE owner = ANY(ARRAY(SELECT service_account_id FROM gone))
)
SELECT max(service_account_id) FROM page HAVING count(*) = $3"""
"""Removes accounts that ended long ago, of the next ones after an id, with their keys. A locked row is in use: it is
skipped."""


class PostgresServiceAccounts:
    """See `app.ServiceAccountStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, account: ServiceAccount, created_by: str) -> None:
        await self._connection.execute(
            ADD, account.service_account_id, account.org_id, account.name, created_by, account.created_at
        )

    async def keep_for_release_before(self, service_account_id: str, key_hash: bytes) -> None:
        await self._connection.execute(KEEP_KEY, service_account_id, key_hash)

    async def get(self, service_account_id: str) -> ServiceAccount | None:
        return _account(await self._connection.fetchrow(GET, service_account_id))

    async def locked(self, service_account_id: str) -> ServiceAccount | None:
        return _account(await self._connection.fetchrow(LOCKED, service_account_id))

    async def count_live(self, org_id: str) -> int:
        return int(await self._connection.fetchval(COUNT_LIVE, org_id))

    async def revoke(self, service_account_id: str, now: datetime) -> None:
        await self._connection.execute(REVOKE, service_account_id, now)

    async def sweep(self, after: str, ended_before: datetime) -> str:
        return await self._connection.fetchval(SWEEP, after, ended_before, MAX_SWEPT_ROWS) or ""

    async def listed(self, org_id: str) -> Sequence[ServiceAccount]:
        rows = await self._connection.fetch(LISTED, org_id, MAX_LISTED)
        return [account for account in map(_account, rows) if account]


def _account(row: asyncpg.Record | None) -> ServiceAccount | None:
    if row is None:
        return None
    return ServiceAccount(
        service_account_id=row["service_account_id"],
        org_id=row["org_id"],
        name=row["name"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        blocked_at=row["blocked_at"],
    )
