"""The end of a worker's event loop: no function can hold it up by swallowing its cancel."""

from __future__ import annotations

import asyncio
import logging

_log = logging.getLogger("oa_worker.agents")


async def end_others(timeout_ms: int) -> None:
    """Cancel all other tasks of the loop, and give them this time to end. Name the others in the log, and leave them
    behind: the end of the loop, which `asyncio.run` would otherwise put off until they end, does not wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return
    for task in others:
        task.cancel("the worker ends")
    _, running = await asyncio.wait(others, timeout=timeout_ms / 1000)
    for task in running:
        _log.error("%s ignores that the worker ends, and is left behind", task.get_name())
        asyncio._unregister_task(task)  # documented for event loops
