"""Every limit of the worker, with its default. Units are at the end of the names."""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.backoff import RECONNECT


@dataclass(frozen=True)
class WorkerLimits:
    """How a worker batches, paces, waits and gives up."""

    flush_interval_ms: int = 25
    """Text waits this long for more text before it is appended."""
    flush_bytes: int = 16 * 1024
    """Text of this size does not wait."""
    max_text_bytes: int = 64 * 1024
    """Maximum text of one event; longer text becomes several events."""
    max_append_bytes: int = 192 * 1024
    """Maximum size of the events in one append."""
    max_append_events: int = 200
    """Maximum number of events in one append (the contract allows 500)."""
    max_buffered_bytes: int = 256 * 1024
    """Once this much of a run waits to be appended, `emit` waits: a run holds no more than this and one append."""
    max_buffered_events: int = 1000
    """The same bound for many small events."""
    events_per_second: int = 240
    """Pace of one run's events when the authority names none."""
    pace_share: float = 0.9
    """Share of the authority's events per second that is used, so that differing clocks do not cause refusals."""
    retry_min_ms: int = 50
    """First wait before a refused append is sent again, when the refusal names none; doubles."""
    retry_max_ms: int = 2_000
    """Maximum wait before a refused append is sent again, when the refusal names none."""
    reconnect_min_ms: int = RECONNECT.first_ms
    """Ceiling of the first wait before reconnecting; doubles; the wait is random below the ceiling (full jitter)."""
    reconnect_max_ms: int = RECONNECT.max_ms
    """Highest ceiling of the wait before reconnecting."""
    steady_after_ms: int = 1_000
    """When a stream that stood for this long breaks, the worker first tries to attach again at once."""
    keepalive_interval_ms: int = 5_000
    """Pause between pings of the connection, which show when an authority is gone without a word."""
    keepalive_timeout_ms: int = 5_000
    """How long a ping may stay unanswered before the worker reconnects."""
    attach_timeout_ms: int = 10_000
    """Maximum wait for the answer to `attach`."""
    token_share: float = 0.5
    """Share of a token's life after which the worker gets a new one. Control may be away for the rest of it."""
    max_rejected_tokens: int = 3
    """This many fresh tokens refused in a row end the worker, because something is wrong with its key. Refusals
    that only a wrong clock causes don't count."""
    max_waiting_runs: int = 500
    """Maximum number of runs that wait without a slot. Beyond that number a run keeps its slot while it waits."""
    keep_slot_ms: int = 100
    """A run whose wait is shorter than this keeps its slot."""
    blocked_after_ms: int = 5_000
    """An event loop that does not answer for this long is held up; the log says by what."""
    drain_timeout_ms: int = 30_000
    """Draining waits this long for the current runs; then they are given up, and the authority requeues them."""


@dataclass(frozen=True)
class ExecLimits:
    """How the exec adapter reads and ends a command."""

    pipe_buffer_bytes: int = 128 * 1024
    """Once this much output waits for `emit`, the pipes are not read: the command waits in its own write."""
    stdin_buffer_bytes: int = 64 * 1024
    """Once this much of the run's inputs waits for the command to read it, no more of them are read from the log."""
    terminate_grace_ms: int = 5_000
    """Time between SIGTERM and SIGKILL when a command is canceled or timed out."""
    leftover_grace_ms: int = 2_000
    """After the command itself has ended: time for processes that it left running to finish writing, before they are
    ended too."""
    kill_timeout_ms: int = 10_000
    """Maximum time for killing what SIGTERM did not end. Processes that still live then are given up, and logged."""
    foreign_output_bytes: int = 1024 * 1024
    """Maximum bytes taken from each pipe after everything of a run has ended, if an outside process still writes."""


DEFAULT_WORKER_LIMITS = WorkerLimits()
DEFAULT_EXEC_LIMITS = ExecLimits()
