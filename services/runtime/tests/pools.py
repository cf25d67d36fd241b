"""Pools of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import Postgres


@asynccontextmanager
async def postgres_of(dsn: str, name: str = "test") -> AsyncIterator[Postgres]:
    """A small pool, which may lose what is committed: the tests' server is fast."""
    settings = DatabaseSettings(
        url=Secret(dsn), may_lose_commits=True, pool_min=1, pool_max=3, connect_timeout_s=30, acquire_timeout_s=30
    )
    async with Postgres(settings, name) as postgres:
        yield postgres
