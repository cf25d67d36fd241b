"""The event loop of an agent's function: its run can be used in no other.

A tool that a framework calls in a thread is in no loop, or in one of its own (`asyncio.run`). What waits there for the
run would never be told that its wait is over.
"""

from __future__ import annotations

import asyncio

from oa_base.refusal import Refusal


def check_loop(own: asyncio.AbstractEventLoop) -> None:
    """Raise Refusal `invalid_value` in another event loop than `own`. Call it before anything is done."""
    if asyncio.get_running_loop() is not own:
        advice = "from a thread, use asyncio.run_coroutine_threadsafe(…, loop).result() with the function's loop"
        raise Refusal("invalid_value", f"the run is used outside its function's event loop; {advice}")
