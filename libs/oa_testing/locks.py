"""Waiting in tests until statements stand still behind a lock that the test holds."""

from __future__ import annotations

import asyncio
from typing import Any

from oa_testing.waiting import PATIENCE_S

_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_POLL_S = 0.01


async def until_lock_waits(admin: Any, count: int = 1) -> None:
    """Return as soon as `count` statements in the database of this connection wait for locks. Raises TimeoutError when
    that never happens. The connection may be within a transaction."""
    async with asyncio.timeout(PATIENCE_S):
        while await admin.fetchval(_WAITING) < count:
            await asyncio.sleep(_POLL_S)
            await admin.execute("SELECT pg_stat_clear_snapshot()")
