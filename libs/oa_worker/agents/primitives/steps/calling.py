"""Calls of the functions of steps: no function can end its worker, or hold it up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar, cast

from oa_worker.agents.failures import AgentExit
from oa_worker.agents.limits import MAX_STEP_THREADS
from oa_worker.agents.threads import Threads

R = TypeVar("R")
_THREADS = Threads(MAX_STEP_THREADS, "step")
"""Threads for steps only. asyncio's own threads are few, and they also resolve names: steps that wait in them would
keep the worker from getting its next token."""


async def called(function: Callable[..., Awaitable[R] | R], *args: object, **kwargs: object) -> R:
    """Return the result of a function. One that is not `async` runs in a thread, so as not to hold up the others."""
    try:
        if inspect.iscoroutinefunction(function):
            return cast("R", await function(*args, **kwargs))
        loop, context = asyncio.get_running_loop(), copy_context()
        result = await loop.run_in_executor(_THREADS, lambda: context.run(_result, function, args, kwargs))
        return cast("R", await result if inspect.isawaitable(result) else result)
    except SystemExit as error:
        raise AgentExit(error) from error


def _result(function: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # As in a coroutine. CPython 3.11 can't hand it to the task that waits, which would wait forever.
        raise RuntimeError("the step's function raised StopIteration") from error
    except KeyboardInterrupt as error:  # no Ctrl-C, which only the main thread gets; it would end the event loop
        raise AgentExit(error) from error
