"""Limits of the log: of its queue, its batches and its tail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SequencerLimits:
    """How the sequencer's queue is bounded and drained."""

    writers: int = 2
    """Concurrent transactions, each with a connection; on different partitions."""
    concurrent_batch_min_bytes: int = 16 << 10
    """Bytes of events that have to wait for a batch to begin while another one is under way."""
    queue_commands: int = 4096
    """Commands that wait."""
    batch_commands: int = 512
    """Commands in one transaction."""
    batch_bytes: int = 8 << 20
    """Bytes of events in one transaction."""
    cached_runs: int = 10_000
    """Runs whose state is cached, to append to them without reading first; 0 reads always."""
    cache_max_age_ms: int = 10_000
    """Time without a look at the database's clock, while nothing has to be read."""
    overloaded_retry_ms: int = 200
    """Wait that a full queue asks for."""


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """How much of the newest log is kept in memory, and how it is read."""

    ring_entries: int = 2048
    """Newest entries of a partition kept in memory."""
    ring_bytes: int = 2 << 20
    """Bytes of them."""
    page_entries: int = 500
    """Entries of one read, or of one message of a tail."""
    page_bytes: int = 1 << 20
    """Bytes of one."""
    poll_interval_ms: int = 2_000
    """Pause between looks at the heads: a notification may get lost."""
    repair_retry_ms: int = 250
    """Pause after a failed read of the log."""


@dataclass(frozen=True, kw_only=True)
class ExcerptLimits:
    """What of a run's events shows how it stands: the newest, and one more than find room."""

    messages: int = 200
    """Messages."""
    message_bytes: int = 512 << 10
    """Bytes of them."""
    output_events: int = 500
    """Newest events of any kind, of which the output is shown."""
    output_bytes: int = 128 << 10
    """Bytes of the output."""
    request_events: int = 400
    """Events of requests: of asking, and of answering."""
    request_bytes: int = 256 << 10
    """Bytes of them."""
