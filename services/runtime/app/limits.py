"""Every limit of the use cases, with its default. The settings that set them are in `config.py`."""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.backoff import Backoff
from services.runtime.app.retention import KEEP_ALL, RetentionClasses


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


_DOUBLINGS = 12
"""Losses after which a pause does not grow any more: the shortest one has become more than an hour."""


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """When workers are silent, lost, or late."""

    heartbeat_interval_ms: int = 10_000
    """How often a worker sends a heartbeat."""
    quiet_after_ms: int = 15_000
    """Silence after which a worker gets nothing new."""
    lost_after_ms: int = 30_000
    """Silence after which a worker is lost."""
    watch_interval_ms: int = 1_000
    """Pause between looks for lost workers and late cancels."""
    watch_page: int = 500
    """Leases or cancels handled in one look."""
    dispatch_interval_ms: int = 5_000
    """Pause between looks for waiting runs without a cause."""
    dispatch_page: int = 50
    """Runs given to one worker in one look."""
    pending_appends: int = 256
    """Appends of one stream that wait for their commit; at that number the stream is not read."""
    retry_initial_ms: int = 1_000
    """Pause before a run whose worker was lost is given to another; twice as long after each further loss."""
    retry_max_ms: int = 60_000
    """Longest such pause."""
    drain_reconnect_ms: int = 100
    """Wait that a draining replica asks workers for."""

    def pauses_ms(self) -> list[int]:
        """The pause after the loss of attempt 1, 2, …; the last one is that of all further ones."""
        backoff = Backoff(self.retry_initial_ms, self.retry_max_ms)
        return [backoff.ceiling_ms(number) for number in range(_DOUBLINGS)]


@dataclass(frozen=True, kw_only=True)
class MergeLimits:
    """How receipts get into the log of receipts."""

    page: int = 1000
    """Receipts merged in one transaction."""
    pause_ms: int = 100
    """Wait after a run has finished, so that what finishes together gets one checkpoint."""
    poll_ms: int = 2_000
    """Pause between looks for receipts without a cause."""


@dataclass(frozen=True, kw_only=True)
class ReplayLimits:
    """How replay artifacts are made and handed out."""

    page_bytes: int = 1 << 20
    """Bytes of an artifact in one answer."""
    cache_bytes: int = 256 << 20
    """Bytes on the temporary disk of artifacts that were read last; one is kept whatever its size."""
    max_bytes: int = 4 << 30
    """Largest artifact; the events of a run with a larger one are neither handed out as one nor archived."""
    builds: int = 2
    """Artifacts made at a time; others wait."""


@dataclass(frozen=True, kw_only=True)
class ArtifactCacheLimits:
    """What is kept of the archive for readers of the log who are below its floor."""

    artifacts: int = 512
    """Artifacts of archived runs kept open, a file each."""
    bytes: int = 1 << 30
    """Bytes of them on the temporary disk; the one that is needed is there whatever its size."""
    fetches: int = 8
    """Artifacts fetched at a time."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """When finished runs leave the log, and for where."""

    url: str = ""
    """Where artifacts are kept: a folder, or a bucket with a prefix. Empty: nowhere."""
    classes: RetentionClasses = KEEP_ALL
    """Age at which the events of a finished run move from the log to the archive, by retention class."""
    poll_ms: int = 10_000
    """Pause between looks for runs."""
    page: int = 100
    """Runs of one look."""
    retry_s: int = 300
    """Pause before a run that could not be archived is tried again."""
    lease_ms: int = 60_000
    """How long the replica that archives is left alone without a sign of life."""
    prune_timeout_ms: int = 120_000
    """Longest removal of one run's events from the log."""
    zstd_level: int = 9
    """How hard to compress."""
