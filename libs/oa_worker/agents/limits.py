"""Limits of agents, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentLimits:
    """Limits on what an agent may say, and on how it is ended."""

    max_event_bytes: int = 255 * 1024
    """Maximum size of an event; the authority's limit is 256 KiB, including the event's place in the log."""
    max_message_bytes: int = 128 * 1024
    """Maximum size of a message of an assistant; longer text becomes several messages."""
    max_failure_chars: int = 500
    """Maximum number of characters that describe an exception."""
    max_step_bytes: int = 192 * 1024
    """Maximum size of a step's result, as JSON; the authority's limit is that of results (OA_RUN_MAX_RESULT_BYTES)."""
    max_result_bytes: int = 192 * 1024
    """Maximum size of the result of a run that is played or replayed; the authority has OA_RUN_MAX_RESULT_BYTES."""
    max_checkpoint_bytes: int = 192 * 1024
    """Maximum size of one checkpoint, as JSON; the authority's limit is OA_RUN_MAX_CHECKPOINT_BYTES."""
    progress_interval_ms: int = 1_000
    """Progress reports that come faster than this are joined: the newest is stored, and the last one at the end."""
    past_patience_ms: int = 3_000
    """After a takeover: how long a branch of the function may work by itself before it asks for the next item of the
    run's past. After that, the other branches continue without it."""
    stop_timeout_ms: int = 10_000
    """Maximum wait for a function whose run was taken away, and at the end of `Worker.run`. A function that still runs
    then is left behind, and that is logged."""


MAX_STEP_THREADS = 64
"""Maximum number of steps that a process runs in threads at a time: those whose function is not `async`. More wait."""
MAX_SLOTS = 1_000
"""Maximum number of runs that a worker has at work at a time, as the contract says."""
MAX_AGENTS = 32
"""Maximum number of agents of a worker, as the contract says."""
SPARE_THREADS = 32
"""Threads of asyncio in a worker's process in addition to one for each slot: some remain when agents block theirs."""
DEFAULT_AGENT_LIMITS = AgentLimits()
