"""Waiting in tests until a condition holds, with a time limit that no slow machine reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 120.0
"""Maximum time for anything that should take a moment. It guards against waiting forever and decides nothing."""
_POLL_S = 0.01


async def eventually(holds: Callable[[], bool]) -> None:
    """Return as soon as `holds()` is true. Raises TimeoutError when that never happens."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(_POLL_S)
