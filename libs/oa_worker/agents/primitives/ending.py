"""A run that is to end: the authority may refuse a call for it before word of the cancel reaches this worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from oa_base.refusal import Refusal
from oa_worker.sdk.adapter import Assignment

T = TypeVar("T")


async def or_canceled(assignment: Assignment, call: Awaitable[T]) -> T:
    """Return what the call returns. Raises its Refusal.

    A call that is refused because the run is to end waits for the cancel, which reaches the agent's function as
    CancelledError. Once the cancel is there, the Refusal is raised, so that a function that cleans up does not hang.
    """
    try:
        return await call
    except Refusal as refusal:
        if refusal.reason == "invalid_transition" and not assignment.cancel.requested:
            await asyncio.Event().wait()
        raise
