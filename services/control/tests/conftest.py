"""Fixtures of control's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from oa_testing.postgres import Database
from services.control.tests.harness import Control, running_control


@pytest_asyncio.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[Control]:
    """A running control service with a small runtime behind it."""
    async with running_control(control_database, tmp_path) as running:
        yield running
