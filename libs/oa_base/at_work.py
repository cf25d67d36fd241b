"""The run that the current code works for, for code that an agent calls without passing its run."""

from __future__ import annotations

from contextvars import ContextVar

RUN_AT_WORK: ContextVar[str] = ContextVar("openagents_run_at_work", default="")
"""The run's id in its agent's function and everything that this calls, tasks and threads included; else empty."""
