"""Limits of agents, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentLimits:
    """What an agent may say, and how it is ended."""

    max_event_bytes: int = 255 * 1024
    """Largest event; the authority's limit is 256 KiB with the event's place in the log."""
    max_message_bytes: int = 128 * 1024
    """Largest message of an assistant; longer text becomes several messages."""
    max_failure_chars: int = 500
    """Characters of what is said of an exception."""
    max_step_bytes: int = 192 * 1024
    """Largest result of a step, as JSON; the authority's limit is that of results (OA_RUN_MAX_RESULT_BYTES)."""
    max_checkpoint_bytes: int = 192 * 1024
    """Maximum size of one checkpoint, as JSON; the authority's limit is OA_RUN_MAX_CHECKPOINT_BYTES."""
    progress_interval_ms: int = 1_000
    """Progress that is reported faster than that is joined: the newest is stored, and the last one at the end."""
    past_patience_ms: int = 3_000
    """How long a branch of a function that was taken over may do something by itself before it asks for the next thing
    of the run's past. Then the other branches go on without it."""
    stop_timeout_ms: int = 10_000
    """Maximum wait for a function whose run was taken away; what still runs then is left behind, and logged."""


MAX_STEP_THREADS = 64
"""Maximum number of steps that a process has in threads at a time: those whose function is not `async`. More wait."""
MAX_SLOTS = 1_000
"""Maximum number of runs that a worker has at work at a time, as the contract says."""
SPARE_THREADS = 32
"""Threads of asyncio in a worker's process besides one for each slot: agents that block theirs leave some to it."""
DEFAULT_AGENT_LIMITS = AgentLimits()
