"""Every limit of the use cases, with its default. Each is a setting: docs/config.md is made from these."""

from __future__ import annotations

import re
from dataclasses import dataclass

from oa_base.backoff import Backoff
from oa_errors import Refusal
from oa_platform.config import setting
from oa_platform.parsers import Parser, integer
from oa_topics.store import TopicLimits
from services.runtime.app.retention import KEEP_ALL, RetentionClasses, retention_classes


@dataclass(frozen=True, kw_only=True)
class SequencerLimits:
    """How the sequencers' queues are bounded and drained."""

    lanes: int = setting(
        "OA_SEQUENCER_LANES",
        integer(1, 1024),
        2,
        doc="Transactions of a sequencer at a time, each with a connection; on different partitions.",
    )
    beside_bytes: int = setting(
        "OA_SEQUENCER_BESIDE_BYTES",
        integer(0, 1 << 30),
        16 << 10,
        doc="Bytes of events that have to wait for a transaction to begin beside another one.",
    )
    queue_commands: int = setting(
        "OA_SEQUENCER_QUEUE", integer(1, 1_000_000), 4096, doc="Most commands that wait for their turn."
    )
    batch_commands: int = setting(
        "OA_SEQUENCER_BATCH", integer(1, 10_000), 512, doc="Most commands in one transaction."
    )
    batch_bytes: int = setting(
        "OA_SEQUENCER_BATCH_BYTES", integer(1024, 1 << 30), 8 << 20, doc="Most bytes of events in one transaction."
    )
    remembered_runs: int = setting(
        "OA_SEQUENCER_REMEMBERED_RUNS",
        integer(0, 1_000_000),
        10_000,
        doc="Runs whose state a sequencer remembers, to append to them without reading first; 0 reads always.",
    )
    remembered_ms: int = setting(
        "OA_SEQUENCER_REMEMBERED_MS",
        integer(0, 600_000),
        10_000,
        doc="Longest time without a look at the database's clock, while nothing has to be read.",
    )
    overloaded_retry_ms: int = setting(
        "OA_SEQUENCER_OVERLOADED_RETRY_MS", integer(1, 60_000), 200, doc="Wait that a full queue asks for."
    )


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """How much of the newest log is kept in memory, and how it is read."""

    ring_entries: int = setting(
        "OA_TAIL_RING_ENTRIES", integer(1, 1_000_000), 2048, doc="Newest entries of a partition kept in memory."
    )
    ring_bytes: int = setting("OA_TAIL_RING_BYTES", integer(1024, 1 << 30), 2 << 20, doc="Most bytes of them.")
    page_entries: int = setting(
        "OA_TAIL_PAGE_ENTRIES", integer(1, 10_000), 500, doc="Most entries of one read or one message of a tail."
    )
    page_bytes: int = setting(
        "OA_TAIL_PAGE_BYTES", integer(1024, 4 << 20), 1 << 20, doc="Most bytes of one read or one message of a tail."
    )
    poll_interval_ms: int = setting(
        "OA_TAIL_POLL_MS", integer(10, 600_000), 2_000, doc="Pause between looks at the heads, should a word get lost."
    )
    repair_retry_ms: int = setting(
        "OA_TAIL_REPAIR_RETRY_MS", integer(10, 60_000), 250, doc="Pause after a failed read of the log."
    )


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """What a stream of live frames may hold, and pages of history."""

    pending_bytes: int = setting(
        "OA_TOPICS_PENDING_BYTES",
        integer(1024, 1 << 30),
        8 << 20,
        doc="Most bytes of frames that wait for one Watch stream; past it they are dropped, and the caller replays.",
    )
    watched_topics: int = setting(
        "OA_TOPICS_WATCHED", integer(1, 10_000_000), 200_000, doc="Most topics of one Watch stream."
    )
    page_frames: int = setting(
        "OA_TOPICS_PAGE_FRAMES", integer(1, 5000), 500, doc="Frames of a replay page when the caller names no number."
    )
    page_bytes: int = setting(
        "OA_TOPICS_PAGE_BYTES",
        integer(1024, 4 << 20),
        1 << 20,
        doc="Bytes of a replay page when the caller names none.",
    )

    def limits(self) -> TopicLimits:
        """As the hub takes them. The tail hears of every commit, so nothing has to be looked for."""
        return TopicLimits(
            watched_topics=self.watched_topics,
            pending_bytes=self.pending_bytes,
            page_frames=self.page_frames,
            page_bytes=self.page_bytes,
            poll_interval_ms=0,
        )


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """When workers are silent, lost, or late."""

    heartbeat_interval_ms: int = setting(
        "OA_WORKER_HEARTBEAT_MS", integer(10, 600_000), 10_000, doc="How often a worker sends a heartbeat."
    )
    quiet_after_ms: int = setting(
        "OA_WORKER_QUIET_MS", integer(10, 600_000), 15_000, doc="Silence after which a worker gets nothing new."
    )
    lost_after_ms: int = setting(
        "OA_WORKER_LOST_MS", integer(10, 3_600_000), 30_000, doc="Silence after which a worker is lost."
    )
    watch_interval_ms: int = setting(
        "OA_WORKER_WATCH_MS", integer(10, 60_000), 1_000, doc="Pause between looks for lost workers and late cancels."
    )
    watch_page: int = setting(
        "OA_WORKER_WATCH_PAGE", integer(1, 10_000), 500, doc="Most leases or cancels handled in one look."
    )
    dispatch_interval_ms: int = setting(
        "OA_DISPATCH_INTERVAL_MS",
        integer(10, 60_000),
        5_000,
        doc="Pause between looks for waiting runs without a cause.",
    )
    dispatch_page: int = setting(
        "OA_DISPATCH_PAGE", integer(1, 1_000), 50, doc="Most runs given to one worker in one look."
    )
    pending_appends: int = setting(
        "OA_WORKER_PENDING_APPENDS",
        integer(1, 100_000),
        256,
        doc="Most appends of one stream that wait for their commit; past it the stream is not read.",
    )
    retry_initial_ms: int = setting(
        "OA_ATTEMPT_BACKOFF_MS",
        integer(0, 3_600_000),
        1_000,
        doc="Pause before a run whose worker was lost is given to another; twice as long after each further loss.",
    )
    retry_max_ms: int = setting("OA_ATTEMPT_BACKOFF_MAX_MS", integer(0, 3_600_000), 60_000, doc="Longest such pause.")
    drain_reconnect_ms: int = setting(
        "OA_WORKER_DRAIN_RECONNECT_MS", integer(0, 60_000), 100, doc="Wait that a draining replica asks workers for."
    )

    def __post_init__(self) -> None:
        """Whether a worker that lives has the time to be heard."""
        if self.lost_after_ms <= 2 * self.heartbeat_interval_ms or self.lost_after_ms <= 4 * self.watch_interval_ms:
            text = "OA_WORKER_LOST_MS must be more than 2 times OA_WORKER_HEARTBEAT_MS and 4 times OA_WORKER_WATCH_MS"
            raise Refusal("invalid_setting", text, field="OA_WORKER_LOST_MS")

    def pauses_ms(self) -> list[int]:
        """The pause after the loss of attempt 1, 2, …; the last one is that of all further ones."""
        backoff = Backoff(self.retry_initial_ms, self.retry_max_ms)
        return [backoff.ceiling_ms(number) for number in range(_DOUBLINGS)]


_DOUBLINGS = 12
"""Losses after which a pause does not grow any more: the shortest one has become more than an hour."""


@dataclass(frozen=True, kw_only=True)
class MergeLimits:
    """How receipts get into the log of receipts."""

    page: int = setting("OA_MERGE_PAGE", integer(1, 100_000), 1000, doc="Most receipts merged in one transaction.")
    pause_ms: int = setting(
        "OA_MERGE_PAUSE_MS",
        integer(0, 60_000),
        100,
        doc="Wait after a run has finished, so that what finishes together gets one checkpoint.",
    )
    poll_ms: int = setting(
        "OA_MERGE_POLL_MS", integer(10, 600_000), 2_000, doc="Pause between looks for receipts without a cause."
    )


@dataclass(frozen=True, kw_only=True)
class ReplayLimits:
    """How replay artifacts are made and handed out."""

    page_bytes: int = setting(
        "OA_REPLAY_PAGE_BYTES", integer(1, 4 << 20), 1 << 20, doc="Bytes of an artifact in one answer."
    )
    cache_bytes: int = setting(
        "OA_REPLAY_CACHE_BYTES",
        integer(0, 1 << 50),
        256 << 20,
        doc="Most bytes on the temporary disk of artifacts that were read last; one is kept whatever its size.",
    )
    max_bytes: int = setting(
        "OA_REPLAY_MAX_BYTES",
        integer(1024, 1 << 50),
        4 << 30,
        doc="Largest artifact; the events of a run with a larger one are neither handed out as one nor archived.",
    )
    builds: int = setting("OA_REPLAY_BUILDS", integer(1, 100), 2, doc="Most artifacts made at a time; others wait.")


@dataclass(frozen=True, kw_only=True)
class ShelfLimits:
    """What is kept of the archive for readers of the log who are below its floor."""

    artifacts: int = setting(
        "OA_SHELF_ARTIFACTS",
        integer(1, 100_000),
        512,
        doc="Most artifacts of archived runs kept open, a file each; where more runs than that interleave in the log, "
        "they are fetched again and again.",
    )
    bytes: int = setting(
        "OA_SHELF_BYTES",
        integer(0, 1 << 50),
        1 << 30,
        doc="Most bytes of them on the temporary disk; the one that is needed is there whatever its size.",
    )
    fetches: int = setting("OA_SHELF_FETCHES", integer(1, 1000), 8, doc="Most artifacts fetched at a time.")


def archive_url() -> Parser[str]:
    """An absolute path, or a bucket with a prefix."""
    bucket = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/=-]*)?")

    def parse(given: str) -> str:
        if not (given.startswith("/") or bucket.fullmatch(given)):
            raise ValueError
        return given

    return Parser(parse, "an absolute path, or a bucket like s3://bucket/prefix")


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """When finished runs leave the log, and for where."""

    url: str = setting(
        "OA_ARCHIVE_URL",
        archive_url(),
        "",
        doc="Where artifacts are kept; a bucket's credentials, region, endpoint and proxy (AWS_PROXY_URL) come from "
        "the usual AWS_ variables.",
    )
    classes: RetentionClasses = setting(
        "OA_RETENTION_CLASSES",
        retention_classes(),
        KEEP_ALL,
        doc="Age at which the events of a finished run move from the log to the archive, for each class that a run can "
        "be given; `default` is that of runs that name none, `keep` is never.",
    )
    poll_ms: int = setting("OA_ARCHIVE_POLL_MS", integer(10, 3_600_000), 10_000, doc="Pause between looks for runs.")
    page: int = setting("OA_ARCHIVE_PAGE", integer(1, 10_000), 100, doc="Most runs of one look.")
    retry_s: int = setting(
        "OA_ARCHIVE_RETRY_S",
        integer(0, 86_400),
        300,
        doc="Pause before a run that could not be archived is tried again.",
    )
    lease_ms: int = setting(
        "OA_ARCHIVE_LEASE_MS",
        integer(100, 3_600_000),
        60_000,
        doc="How long the replica that archives is left alone without a sign of life.",
    )
    prune_timeout_ms: int = setting(
        "OA_ARCHIVE_PRUNE_TIMEOUT_MS",
        integer(100, 3_600_000),
        120_000,
        doc="Longest removal of one run's events from the log.",
    )
    zstd_level: int = setting("OA_ARCHIVE_ZSTD_LEVEL", integer(1, 19), 9, doc="How hard to compress.")

    def __post_init__(self) -> None:
        if self.classes.ages and not self.url:
            text = (
                "OA_RETENTION_CLASSES has ages and needs OA_ARCHIVE_URL: nothing is pruned that is not kept elsewhere."
            )
            raise Refusal("invalid_setting", text, field="OA_ARCHIVE_URL")
