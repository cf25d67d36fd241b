"""A run that is to end: nobody answers its questions any more, it starts no runs, and its log gets no more inputs and
ends of children.

The authority may refuse a call for such a run before word of the cancel reaches this worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from oa_base.refusal import Refusal
from oa_worker.sdk.adapter import Assignment

T = TypeVar("T")


class RunCanceling(Refusal):
    """The run's cancel was requested. A function that lets this pass ends as canceled."""

    def __init__(self) -> None:
        what = "asking people, starting runs, or waiting for inputs or children"
        text = f"the run is being canceled; clean up without {what}"
        super().__init__("invalid_transition", text)


async def check_not_canceling(assignment: Assignment) -> None:
    """Raise RunCanceling once the cancel was requested. Call it before anything is asked for, or is waited for that the
    log does not have."""
    if assignment.cancel.requested:
        await asyncio.sleep(0)  # a function that asks again and again must not keep the cancel from reaching it
        raise RunCanceling


def is_canceling(error: BaseException) -> bool:
    """Return whether the exception is RunCanceling, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(RunCanceling)[1] is None
    return isinstance(error, RunCanceling)


async def or_canceled(assignment: Assignment, call: Awaitable[T]) -> T:
    """Return what the call returns. Raises its Refusal.

    A call that is refused because the run is to end waits for the cancel, which reaches the agent's function as
    CancelledError. Once the cancel is there, RunCanceling is raised, so that a function that cleans up does not hang.
    """
    try:
        return await call
    except Refusal as refusal:
        if refusal.reason != "invalid_transition":
            raise
        if not assignment.cancel.requested:
            await asyncio.Event().wait()
        raise RunCanceling from refusal
