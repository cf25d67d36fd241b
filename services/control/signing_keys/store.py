"""Signing keys in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from oa_platform.postgres.pool import Connection
from services.control.signing_keys.domain import KeyRecord

LOCK = "LOCK TABLE control.signing_keys IN SHARE ROW EXCLUSIVE MODE"
"""Allows one rotation at a time. Reads continue."""
ALL = """
SELECT key_id, sealed, made_at, signs_from, ends_at FROM control.signing_keys ORDER BY made_at, signs_from, key_id"""
"""Every key, the oldest first."""
PUT = """
INSERT INTO control.signing_keys (key_id, sealed, made_at, signs_from, ends_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (key_id) DO UPDATE SET ends_at = excluded.ends_at"""
"""Adds a key, or gives an existing one its end."""


class PostgresSigningKeys:
    """See `app.SigningKeyStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> None:
        await self._connection.execute(LOCK)

    async def all(self) -> Sequence[KeyRecord]:
        return [KeyRecord(**dict(row)) for row in await self._connection.fetch(ALL)]

    async def put(self, records: Sequence[KeyRecord]) -> None:
        rows = [(one.key_id, one.sealed, one.made_at, one.signs_from, one.ends_at) for one in records]
        await self._connection.executemany(PUT, rows)
