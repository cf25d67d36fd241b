"""What a step may not do: ask its run for something.

What is asked for within a step stands in the log, and so does the step. After a takeover the step returns its stored
result and its function is not called, so nobody would ask for the rest: all later numbers would be wrong, and inputs
would be heard twice. The first attempt refuses it, so that this is noticed before a worker dies.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar, cast

from oa_base.refusal import Refusal

R = TypeVar("R")

_STEP: ContextVar[str] = ContextVar("openagents_step", default="")
"""The name of the step whose function is at work, in all that it calls, tasks and threads included; else empty."""


@types.coroutine
def within_step(name: str, work: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
    """Return the result of `work`, the whole of this step, which runs in the task that awaits it.

    It has a context of its own, a copy: what it sets there is not there after it, as it would not be after a takeover.
    """
    context = copy_context()
    context.run(_STEP.set, name)
    go_on: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            awaited = context.run(go_on)
        except StopIteration as end:
            return cast("R", end.value)
        try:
            go_on = partial(work.send, (yield awaited))
        except BaseException as error:  # noqa: BLE001 - for the step, as the cancel of its task
            go_on = partial(work.throw, error)


def check_outside_step(what: str) -> None:
    """Raise Refusal `invalid_value` within a step. `what`: what is asked for. Call it before anything is done."""
    if step := _STEP.get():
        advice = "ask before the step or after it, and pass the result in"
        raise Refusal("invalid_value", f"step {step!r} asks for {what}, which no step may; {advice}", field="function")


def leave_steps(context: Context) -> None:
    """Let an agent's function that runs in this context be in no step, even if a step plays it."""
    context.run(_STEP.set, "")
