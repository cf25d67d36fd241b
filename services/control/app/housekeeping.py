"""Removing what is over."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Protocol

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal

SWEEP_INTERVAL_S = 60.0
_log = structlog.get_logger(__name__)


class Sweepable(Protocol):
    """A store that can forget."""

    async def sweep(self, now: datetime) -> None:
        """Remove what is over at `now`."""
        ...


async def keep_sweeping(store: Sweepable, clock: Clock, interval_s: float = SWEEP_INTERVAL_S) -> None:
    """Sweep for ever. A sweep that fails is tried again at the next turn."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await store.sweep(clock.now())
        except Refusal as refusal:
            _log.warning("sweep_failed", reason=refusal.reason)
