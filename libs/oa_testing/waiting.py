"""Waiting in tests: for something to hold, under a guard that no slow machine reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
"""How long anything may take that should take a moment. It guards against waiting for ever and decides nothing."""
_POLL_S = 0.01


async def eventually(holds: Callable[[], bool]) -> None:
    """Return as soon as `holds()`; raises TimeoutError when that never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(_POLL_S)
