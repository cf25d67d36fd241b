"""Fixtures of control's tests; the `conftest` of each tests package that uses them names them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest_asyncio

from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.tests.cases import Cases, cases_on
from services.control.tests.harness import Control, running_control

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection


@pytest_asyncio.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[Control]:
    """A running control service with a small runtime behind it."""
    async with running_control(control_database, tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def cases(control_database: Database, clock: FakeClock) -> AsyncIterator[Cases]:
    """The use cases over a fresh database."""
    async with cases_on(control_database, clock) as made:
        yield made


@pytest_asyncio.fixture
async def admin(control_database: Database) -> AsyncIterator[Connection]:
    """A superuser's connection to the test's database, for looking behind the scenes."""
    connection = await asyncpg.connect(control_database.admin)
    yield connection
    await connection.close()
