"""How the functions of steps are called: none takes its worker with it, or holds it up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar, cast

from oa_worker.agents.failures import AgentExit
from oa_worker.agents.limits import MAX_STEP_THREADS

R = TypeVar("R")
_THREADS = ThreadPoolExecutor(MAX_STEP_THREADS, "step")
"""Threads of steps alone. asyncio's own are few, and resolve names: steps that wait in them would keep the worker from
its next token."""


async def called(function: Callable[..., Awaitable[R] | R], *args: object, **kwargs: object) -> R:
    """The result of a function; one that is not `async` runs in a thread, so that it does not hold up the others."""
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
        # As in a coroutine. CPython 3.11 can't hand it to whoever waits, who would wait for ever.
        raise RuntimeError("the step's function raised StopIteration") from error
