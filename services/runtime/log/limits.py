"""Limits of the log: of its queue, its batches and its tail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SequencerLimits:
    """How the sequencer's queue is bounded and drained."""

    writers: int = 2
    """Maximum number of concurrent transactions, each with its own connection and on different partitions."""
    concurrent_batch_min_bytes: int = 16 << 10
    """Minimum bytes of waiting events for a batch to begin while another one is under way."""
    queue_commands: int = 4096
    """Maximum number of commands that wait."""
    queue_bytes: int = 64 << 20
    """Maximum bytes of the events that wait. The last command may exceed them."""
    batch_commands: int = 512
    """Maximum number of commands in one transaction."""
    batch_bytes: int = 8 << 20
    """Maximum bytes of events in one transaction. A first command that is larger is taken alone."""
    cached_runs: int = 10_000
    """Maximum number of runs whose state is cached, to append to them without reading first; 0 always reads."""
    cache_max_age_ms: int = 10_000
    """Maximum time without reading the database's clock while nothing else has to be read."""
    overloaded_retry_ms: int = 200
    """Retry delay that the refusal of a full queue states."""


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """How much of the newest log is kept in memory, and how it is read."""

    ring_entries: int = 2048
    """Maximum number of newest entries of a partition that are kept in memory."""
    ring_bytes: int = 2 << 20
    """Maximum bytes of these entries."""
    page_entries: int = 500
    """Maximum number of entries in one read, or in one message of a tail."""
    page_bytes: int = 1 << 20
    """Maximum bytes of one read or message."""
    poll_interval_ms: int = 2_000
    """Pause between reads of the heads, which are needed because a notification may get lost."""
    repair_retry_ms: int = 250
    """Pause after a failed read of the log."""


@dataclass(frozen=True, kw_only=True)
class ExcerptLimits:
    """How much of a run's events an excerpt contains: the newest, and one more than fits the bytes."""

    messages: int = 200
    """Maximum number of messages."""
    message_bytes: int = 512 << 10
    """Maximum bytes of the messages."""
    output_events: int = 500
    """Maximum number of newest events, of any kind, from which the output is taken."""
    output_bytes: int = 128 << 10
    """Maximum bytes of the output."""
    request_events: int = 400
    """Maximum number of events that open or settle requests."""
    request_bytes: int = 256 << 10
    """Maximum bytes of these events."""
