"""Fixtures of all the projector's tests; each folder of tests imports them in its conftest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from oa_topics.store import TopicLimits
from services.projector.tests.doors import Doors, opened
from services.projector.tests.rig import TOPIC_LIMITS, Rig


@pytest_asyncio.fixture
async def postgres(projector_database: Database) -> AsyncIterator[Postgres]:
    """A pool in the service's role."""
    async with Postgres(patient_settings(projector_database.projector), "projector") as postgres:
        yield postgres


@pytest.fixture
def limits() -> TopicLimits:
    """The defaults; a test that reaches a limit has its own."""
    return TOPIC_LIMITS


@pytest_asyncio.fixture
async def rig(postgres: Postgres, limits: TopicLimits) -> Rig:
    """A projection on a fresh database."""
    rig = Rig(postgres, limits)
    await rig.lineage.open()
    return rig


@pytest_asyncio.fixture
async def doors(rig: Rig) -> AsyncIterator[Doors]:
    """Its doors."""
    async with opened(rig) as doors:
        yield doors
