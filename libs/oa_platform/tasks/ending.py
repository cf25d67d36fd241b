"""Ends tasks."""

from __future__ import annotations

import asyncio
from typing import Any


def is_to_end() -> bool:
    """Whether somebody has canceled the current task. If not, a CancelledError comes from what the task waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks, and return when all of them have ended. What they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
