"""Fixtures that tests of several features take: somebody who calls, and a replica with default settings."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from oa_testing.postgres import Database
from services.runtime.tests.rig import Replica, Somebody, replica, runtime_settings, somebody


@pytest.fixture
def who() -> Somebody:
    return somebody()


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, who: Somebody) -> AsyncIterator[Replica]:
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        yield runtime
