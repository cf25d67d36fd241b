"""One database transaction, and what a use case needs from it.

Each feature says in a Protocol which tables it uses within a transaction; `wiring` makes the one object that has all
of them. So features share transactions without knowing each other's tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import structlog

from oa_base.refusal import Refusal
from oa_platform.health.failures import surviving
from services.control.transactions.limits import SWEEP_INTERVAL_S

_log = structlog.get_logger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Transactions(Protocol[T_co]):
    """Gives access to the tables that `T_co` names. Raises Refusal `unavailable` when the database can't be reached."""

    def begin(self) -> AbstractAsyncContextManager[T_co]:
        """Commits when the block ends, rolls back when it raises."""
        ...

    def autocommit(self) -> AbstractAsyncContextManager[T_co]:
        """Each statement is a transaction by itself. This saves two round trips to the database for a single one."""
        ...


def settled(outcome: T | Refusal) -> T:
    """Return the value of a transaction that was committed. Raises it when it is a Refusal.

    For refusals that must be remembered: counted guesses and audit rows are committed before the refusal is raised.
    """
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome


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
