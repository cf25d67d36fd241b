"""Pools of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import patient_settings


@asynccontextmanager
async def postgres_of(dsn: str, name: str = "test") -> AsyncIterator[Postgres]:
    """A small pool, which may lose what is committed: the tests' server is fast."""
    async with Postgres(patient_settings(dsn, pool_min=1, pool_max=3), name) as postgres:
        yield postgres
