"""Processes that a test starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def killed_at_end(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.subprocess.Process]:
    """`process`, which is killed at the end of the block if it still runs."""
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
