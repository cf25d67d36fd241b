"""What a step may not do: ask its run for something.

What is asked for within a step stands in the log, and so does the step. After a takeover the step returns its stored
result and its function is not called, so nobody would ask for the rest: all later numbers would be wrong, and inputs
would be heard twice. The first attempt refuses it, so that this is noticed before a worker dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar

from oa_base.refusal import Refusal

_STEP: ContextVar[str] = ContextVar("openagents_step", default="")
"""The name of the step whose function is at work, in all that it calls, tasks and threads included; else empty."""


@contextmanager
def within_step(name: str) -> Iterator[None]:
    """Mark what the block calls as a part of this step."""
    token = _STEP.set(name)
    try:
        yield
    finally:
        _STEP.reset(token)


def check_outside_step(what: str) -> None:
    """Raise Refusal `invalid_value` within a step. `what`: what is asked for. Call it before anything is done."""
    if step := _STEP.get():
        advice = "ask before the step or after it, and pass the result in"
        raise Refusal("invalid_value", f"step {step!r} asks for {what}, which no step may; {advice}", field="function")


def leave_steps(context: Context) -> None:
    """Let an agent's function that runs in this context be in no step, even if a step plays it."""
    context.run(_STEP.set, "")
