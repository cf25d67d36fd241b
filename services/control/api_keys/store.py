"""API keys in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.api_keys.app.uses import Seen
from services.control.api_keys.domain import ApiKey, EndReason, OwnedKey, owner_scopes
from services.control.api_keys.limits import MAX_ENDED_AT_ONCE, MAX_LISTED
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.policy.domain import Role, known_scopes

_COLUMNS = """k.api_key_id, k.owner, k.org_id, k.name, k.prefix, k.scopes, k.created_at, k.expires_at, k.last_used_at,
    k.revoked_at, k.revoke_reason, k.replaced_by"""

ADD = """
INSERT INTO control.api_keys
    (api_key_id, owner, org_id, name, prefix, key_hash, scopes, created_by, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
"""Stores a new key: its hash and its attributes."""
BY_HASH = f"SELECT {_COLUMNS} FROM control.api_keys k WHERE key_hash = $1"  # noqa: S608 - constants
"""A key, ended or not."""
GET = f"SELECT {_COLUMNS} FROM control.api_keys k WHERE api_key_id = $1"  # noqa: S608
"""A key, for reading."""
LOCKED = f"{GET} FOR UPDATE"
"""A key, to be changed."""
STANDING = f"""
SELECT {_COLUMNS}, m.role,
    o.delete_at IS NULL AND ((u.user_id IS NOT NULL AND u.blocked_at IS NULL)
        OR (s.service_account_id IS NOT NULL AND s.blocked_at IS NULL AND s.revoked_at IS NULL)) AS may_come_in
FROM control.api_keys k
JOIN control.orgs o USING (org_id)
LEFT JOIN control.users u ON u.user_id = k.owner
LEFT JOIN control.memberships m ON m.org_id = k.org_id AND m.user_id = k.owner
LEFT JOIN control.service_accounts s ON s.service_account_id = k.owner
WHERE k.api_key_id = ANY($1::text[])"""  # noqa: S608
"""Keys with the current state of their owners and orgs: everything that admits calls, in one round trip."""
HOLD_OWNER = """
SELECT (SELECT user_id FROM control.users WHERE user_id = $1 FOR SHARE),
       (SELECT service_account_id FROM control.service_accounts WHERE service_account_id = $1 FOR SHARE)"""
"""Keeps the owner unchanged: a transaction that blocks the owner comes before this one, or after it."""
HOLD_SESSION = "SELECT 1 FROM control.sessions WHERE session_id = $1 AND revoked_at IS NULL FOR SHARE"
"""Keeps a session as it is. No row for one that was ended."""
LOCK_OWNER = """
SELECT (SELECT user_id FROM control.users WHERE user_id = $1 FOR NO KEY UPDATE),
       (SELECT service_account_id FROM control.service_accounts WHERE service_account_id = $1 FOR NO KEY UPDATE)"""
"""Makes transactions that count an owner's keys run one after the other."""
ORG_OF_ACCOUNT = """
SELECT org_id FROM control.service_accounts WHERE service_account_id = $1 AND (revoked_at IS NULL OR $2)"""
"""The org of a service account. Accounts that have ended are included only on request."""
COUNT_LIVE = """
SELECT count(*) FROM control.api_keys
WHERE owner = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"""
"""The number of an owner's keys that can be used."""
LIVE = f"""
SELECT {_COLUMNS} FROM control.api_keys k WHERE owner = $1 AND revoked_at IS NULL
ORDER BY api_key_id FOR UPDATE"""  # noqa: S608
"""The keys of an owner that can still be ended."""
LISTED = f"""
SELECT {_COLUMNS} FROM control.api_keys k WHERE owner = $1
ORDER BY revoked_at IS NOT NULL, created_at DESC, api_key_id DESC LIMIT $2"""  # noqa: S608
"""The keys of an owner, newest first, those that have ended last."""
EXPIRED = f"""
SELECT {_COLUMNS} FROM control.api_keys k WHERE revoked_at IS NULL AND expires_at <= $1
ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"""  # noqa: S608
"""Keys that have expired, but whose tokens may still be valid."""
END = """
WITH ended AS (
    UPDATE control.api_keys SET revoked_at = $2, revoke_reason = $3 WHERE api_key_id = $1 AND revoked_at IS NULL
    RETURNING key_hash
)
UPDATE control.service_accounts s SET key_hash = NULL FROM ended WHERE s.key_hash = ended.key_hash"""
"""Ends a key, unless it has ended already. The previous release no longer accepts it either."""
REPLACE = """
WITH replaced AS (
    UPDATE control.api_keys SET replaced_by = $2, expires_at = $3 WHERE api_key_id = $1 RETURNING key_hash
)
UPDATE control.service_accounts s SET key_hash = NULL FROM replaced WHERE s.key_hash = replaced.key_hash"""
"""Sets a key's successor and its end. The previous release, which knows no end, no longer accepts the key."""
REFUSED = """
UPDATE control.api_keys SET refused_at = $2
WHERE api_key_id = $1 AND (refused_at IS NULL OR refused_at <= $3) RETURNING api_key_id"""
"""Whether to record the use of a key after its end."""
USED = """
WITH used AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (api_key_id, prefix, used_at)
), held AS (
    SELECT k.api_key_id FROM control.api_keys k JOIN used USING (api_key_id)
    ORDER BY k.api_key_id FOR NO KEY UPDATE OF k SKIP LOCKED
)
UPDATE control.api_keys k
SET last_used_at = GREATEST(k.last_used_at, u.used_at), prefix = COALESCE(NULLIF(u.prefix, ''), k.prefix)
FROM used u JOIN held USING (api_key_id) WHERE k.api_key_id = u.api_key_id"""
"""Stores when keys were used. A key that is locked is skipped: its next use is stored instead."""

SWEEP = """
WITH page AS (
    SELECT api_key_id FROM control.api_keys WHERE api_key_id > $1 ORDER BY api_key_id LIMIT $5
), gone AS (
    DELETE FROM control.api_keys WHERE api_key_id = ANY(ARRAY(
        SELECT k.api_key_id FROM control.api_keys k JOIN control.orgs o USING (org_id)
        WHERE k.api_key_id = ANY(ARRAY(SELECT api_key_id FROM page))
          AND (o.gone_at < $2 OR k.revoked_at < CASE k.revoke_reason WHEN $4 THEN $3::timestamptz
               ELSE $2::timestamptz END)
        FOR UPDATE OF k SKIP LOCKED))
)
SELECT max(api_key_id) FROM page HAVING count(*) = $5"""
"""Removes keys that ended long ago ($2), or by operators ($3, $4), of the next ones after an id. A locked row is in
use: it is skipped."""


class PostgresApiKeys:
    """See `app.keys.ApiKeyStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, key: ApiKey, key_hash: bytes, created_by: str) -> None:
        await self._connection.execute(
            ADD,
            key.api_key_id,
            key.owner,
            key.org_id,
            key.name,
            key.prefix,
            key_hash,
            sorted(key.scopes),
            created_by,
            key.created_at,
            key.expires_at,
        )

    async def by_hash(self, key_hash: bytes) -> ApiKey | None:
        row = await self._connection.fetchrow(BY_HASH, key_hash)
        return _key(row) if row else None

    async def get(self, api_key_id: str) -> ApiKey | None:
        row = await self._connection.fetchrow(GET, api_key_id)
        return _key(row) if row else None

    async def locked(self, api_key_id: str) -> ApiKey | None:
        row = await self._connection.fetchrow(LOCKED, api_key_id)
        return _key(row) if row else None

    async def standing(self, api_key_id: str) -> OwnedKey | None:
        return (await self.standings([api_key_id])).get(api_key_id)

    async def standings(self, api_key_ids: Sequence[str]) -> Mapping[str, OwnedKey]:
        return {row["api_key_id"]: _owned(row) for row in await self._connection.fetch(STANDING, api_key_ids)}

    async def hold_owner(self, owner: str) -> None:
        await self._connection.fetchrow(HOLD_OWNER, owner)

    async def hold_session(self, session_id: str) -> bool:
        return await self._connection.fetchval(HOLD_SESSION, session_id) is not None

    async def org_of_account(self, service_account_id: str, *, ended_too: bool) -> str | None:
        org_id: str | None = await self._connection.fetchval(ORG_OF_ACCOUNT, service_account_id, ended_too)
        return org_id

    async def count_live(self, owner: str, now: datetime) -> int:
        await self._connection.fetchrow(LOCK_OWNER, owner)
        return int(await self._connection.fetchval(COUNT_LIVE, owner, now))

    async def live(self, owner: str) -> Sequence[ApiKey]:
        return [_key(row) for row in await self._connection.fetch(LIVE, owner)]

    async def listed(self, owner: str) -> Sequence[ApiKey]:
        return [_key(row) for row in await self._connection.fetch(LISTED, owner, MAX_LISTED)]

    async def expired(self, now: datetime) -> Sequence[ApiKey]:
        return [_key(row) for row in await self._connection.fetch(EXPIRED, now, MAX_ENDED_AT_ONCE)]

    async def end(self, api_key_id: str, reason: EndReason, now: datetime) -> None:
        await self._connection.execute(END, api_key_id, now, reason.value)

    async def replace(self, api_key_id: str, replaced_by: str, expires_at: datetime) -> None:
        await self._connection.execute(REPLACE, api_key_id, replaced_by, expires_at)

    async def sweep(self, after: str, ended_before: datetime, by_operators_before: datetime) -> str:
        bounds = ended_before, by_operators_before, EndReason.OWNER_BLOCKED
        return await self._connection.fetchval(SWEEP, after, *bounds, MAX_SWEPT_ROWS) or ""

    async def refused(self, api_key_id: str, now: datetime, not_since: datetime) -> bool:
        return await self._connection.fetchval(REFUSED, api_key_id, now, not_since) is not None

    async def used(self, uses: Mapping[str, Seen]) -> None:
        ids = list(uses)
        prefixes, times = [uses[one].prefix for one in ids], [uses[one].used_at for one in ids]
        await self._connection.execute(USED, ids, prefixes, times)


def _owned(row: asyncpg.Record) -> OwnedKey:
    role = Role(row["role"]) if row["role"] else None
    return OwnedKey(_key(row), owner_scopes(row["owner"], may_come_in=row["may_come_in"], role=role))


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        api_key_id=row["api_key_id"],
        owner=row["owner"],
        org_id=row["org_id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=known_scopes(frozenset(row["scopes"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
        revoke_reason=row["revoke_reason"],
        replaced_by=row["replaced_by"] or "",
    )
