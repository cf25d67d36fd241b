"""What the projector's tests share: see `rig`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database
from services.projector.tests.rig import Rig, database_settings


@pytest_asyncio.fixture
async def postgres(projector_database: Database) -> AsyncIterator[Postgres]:
    """A pool in the service's role."""
    async with Postgres(database_settings(projector_database), "projector") as postgres:
        yield postgres


@pytest.fixture
def rig(postgres: Postgres) -> Rig:
    """A projection on a fresh database."""
    return Rig(postgres)
