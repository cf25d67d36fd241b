"""Which run's agent the present code is part of, for code that is called by an agent and does not get its run."""

from __future__ import annotations

from contextvars import ContextVar

RUN_AT_WORK: ContextVar[str] = ContextVar("openagents_run_at_work", default="")
"""The run's id, in its agent's function and in what that calls, tasks and threads included; empty elsewhere."""
