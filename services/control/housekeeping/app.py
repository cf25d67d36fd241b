"""Sweeping tables, and writing down what was counted in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from oa_platform.health.failures import surviving
from services.control.housekeeping.limits import SWEEP_INTERVAL_S

_log = structlog.get_logger(__name__)


async def keep_sweeping(*sweeps: Callable[[], Awaitable[None]], interval_s: float = SWEEP_INTERVAL_S) -> None:
    """Sweep until canceled. A sweep that fails, for whatever reason, is tried again after the next interval, and holds
    up no other one."""
    while True:
        await asyncio.sleep(interval_s)
        for sweep in sweeps:
            with surviving(_log, "sweep_failed", sweep=sweep.__qualname__):
                await sweep()


async def keep_writing(write_down: Callable[[], Awaitable[None]], interval_s: float, still_waits: str) -> None:
    """Call `write_down` every `interval_s`, and once more when canceled.

    If `write_down` fails, it keeps what it has; this is logged as `still_waits`.
    """

    async def attempt() -> None:
        with surviving(_log, still_waits):  # people are served without what is written here
            await write_down()

    try:
        while True:
            await asyncio.sleep(interval_s)
            await attempt()
    finally:
        await attempt()
