"""The bytes that the database stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from benchmarks.sizing.site import Site
from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.postgres.server import SUPERUSER
from oa_platform.postgres.planes import PLANES

_SIZES = """
SELECT coalesce(sum(pg_total_relation_size(relation.oid)), 0)::bigint AS stored,
    (pg_current_wal_insert_lsn() - '0/0')::bigint AS wal
FROM pg_class AS relation JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
WHERE relation.relkind = 'r' AND schema.nspname = ANY ($1)
"""
"""Selects the bytes of all tables with their indexes, and of the write-ahead log since it began."""


@asynccontextmanager
async def disk(site: Site) -> AsyncIterator[Callable[[], Awaitable[tuple[int, int]]]]:
    """Begin to measure. Yields a function that returns the bytes added to the tables and to the write-ahead log."""
    secrets = load_or_create(site.stack.home / "secrets")
    connection = await asyncpg.connect(role_dsn(SUPERUSER, site.stack.ports, secrets))
    try:
        before = await _sizes(connection)

        async def added() -> tuple[int, int]:
            now = await _sizes(connection)
            return now[0] - before[0], now[1] - before[1]

        yield added
    finally:
        await connection.close()


async def _sizes(connection: asyncpg.Connection[asyncpg.Record]) -> tuple[int, int]:
    row = await connection.fetchrow(_SIZES, [plane.schema for plane in PLANES])
    assert row is not None
    return row["stored"], row["wal"]
