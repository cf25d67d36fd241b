"""Settings of the runtime. docs/config.md is generated from them; the defaults are those of the limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from oa_platform.auth.keys import is_same_key, unusable_key, weak_key
from oa_platform.config.loading import Problem, group, setting
from oa_platform.config.parsers import Address, Secret, address, integer, nats_url, secret_text, text
from oa_platform.config.shared import (
    DatabaseSettings,
    EdgeTlsSettings,
    FrameSettings,
    GrpcClientSettings,
    JwksSettings,
    QuarantineSettings,
    RevocationSettings,
    ServiceSettings,
)
from oa_runlog.authority.limits import RunLimits
from oa_topics.store import TopicLimits
from services.runtime.archive_settings import ArchiveSettings, ArtifactCacheSettings, ArtifactSettings
from services.runtime.children.limits import ChildLimits
from services.runtime.log.limits import SequencerLimits, TailLimits
from services.runtime.receipts.limits import MergeLimits
from services.runtime.replays.limits import ReplayLimits
from services.runtime.requests.limits import RequestLimits
from services.runtime.retention.domain import RetentionClasses
from services.runtime.schedule_settings import ScheduleSettings
from services.runtime.workers.limits import WorkerLimits

_RUN, _SEQUENCER, _TAIL, _TOPICS = RunLimits(), SequencerLimits(), TailLimits(), TopicLimits(watched_topics=200_000)
_WORKERS, _REQUESTS, _CHILDREN = WorkerLimits(), RequestLimits(), ChildLimits()
_MERGE, _REPLAY = MergeLimits(), ReplayLimits()


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Limits of a run. A refused append stores nothing."""

    max_event_bytes: int = setting(
        "OA_RUN_MAX_EVENT_BYTES", integer(1024, 4 << 20), _RUN.max_event_bytes, doc="Maximum size of an event."
    )
    max_append_bytes: int = setting(
        "OA_RUN_MAX_APPEND_BYTES",
        integer(1024, 8 << 20),
        _RUN.max_append_bytes,
        doc="Maximum size of the events in one append.",
    )
    # Each of these is stored in one event, next to the rest of the event.
    max_input_bytes: int = setting(
        "OA_RUN_MAX_INPUT_BYTES", integer(1, 4 << 20), _RUN.max_input_bytes, doc="Maximum size of an agent's input."
    )
    max_result_bytes: int = setting(
        "OA_RUN_MAX_RESULT_BYTES", integer(1, 4 << 20), _RUN.max_result_bytes, doc="Maximum size of an agent's result."
    )
    max_checkpoint_bytes: int = setting(
        "OA_RUN_MAX_CHECKPOINT_BYTES", integer(1, 4 << 20), _RUN.max_checkpoint_bytes, doc="Maximum checkpoint size."
    )
    events_per_second: int = setting(
        "OA_RUN_EVENTS_PER_SECOND",
        integer(1, 1_000_000),
        _RUN.events_per_second,
        doc="Maximum number of events that a run appends each second, on average.",
    )
    # No lower than the contract's largest append: an append that is larger than the burst could never pass.
    burst_events: int = setting(
        "OA_RUN_BURST_EVENTS",
        integer(500, 1_000_000),
        _RUN.burst_events,
        doc="Maximum number of events that a run appends at once, after a pause.",
    )
    max_requeues: int = setting(
        "OA_RUN_MAX_REQUEUES",
        integer(0, 1000),
        _RUN.max_requeues,
        doc="Maximum number of restarts of a run after its worker was lost.",
    )
    max_running_per_org: int = setting(
        "OA_RUN_MAX_RUNNING_PER_ORG",
        integer(0, 1_000_000),
        _RUN.max_running_per_org,
        doc="Maximum number of an org's runs that workers hold at a time, not counting runs whose children they "
        "hold. Other runs wait. 0 means no limit.",
    )
    max_running_per_person: int = setting(
        "OA_RUN_MAX_RUNNING_PER_PERSON",
        integer(0, 1_000_000),
        _RUN.max_running_per_person,
        doc="Maximum number of one person's runs in an org that workers hold at a time, not counting runs whose "
        "children they hold. 0 means no limit.",
    )
    cancel_deadline_ms: int = setting(
        "OA_RUN_CANCEL_DEADLINE_MS",
        integer(0, 3_600_000),
        _RUN.cancel_deadline_ms,
        doc="Time within which a worker has to end a canceled run.",
    )

    def limits(self, retention: RetentionClasses) -> RunLimits:
        """The settings as `RunLimits`, with the classes that a run can have."""
        return RunLimits(retention_classes=retention.names, **vars(self))


@dataclass(frozen=True, kw_only=True)
class SequencerSettings:
    """How the sequencer's queue is limited and drained."""

    writers: int = setting(
        "OA_SEQUENCER_WRITERS",
        integer(1, 1024),
        _SEQUENCER.writers,
        doc="Number of writers of a sequencer. Each has a connection and commits one batch at a time.",
    )
    concurrent_batch_min_bytes: int = setting(
        "OA_SEQUENCER_CONCURRENT_BATCH_MIN_BYTES",
        integer(0, 1 << 30),
        _SEQUENCER.concurrent_batch_min_bytes,
        doc="Minimum size of the waiting events at which a batch begins while another one is in progress.",
    )
    queue_commands: int = setting(
        "OA_SEQUENCER_QUEUE",
        integer(1, 1_000_000),
        _SEQUENCER.queue_commands,
        doc="Maximum number of waiting commands. More are refused as `overloaded`. One org gets at most eight ninths.",
    )
    queue_bytes: int = setting(
        "OA_SEQUENCER_QUEUE_BYTES",
        integer(1024, 1 << 36),
        _SEQUENCER.queue_bytes,
        doc="Maximum size of the waiting events, which the last command may exceed. More commands are refused as "
        "`overloaded`. One org gets at most eight ninths.",
    )
    batch_commands: int = setting(
        "OA_SEQUENCER_BATCH",
        integer(1, 10_000),
        _SEQUENCER.batch_commands,
        doc="Maximum number of commands in one transaction.",
    )
    batch_bytes: int = setting(
        "OA_SEQUENCER_BATCH_BYTES",
        integer(1024, 1 << 30),
        _SEQUENCER.batch_bytes,
        doc="Maximum size of the events in one transaction.",
    )
    cached_runs: int = setting(
        "OA_SEQUENCER_CACHED_RUNS",
        integer(0, 1_000_000),
        _SEQUENCER.cached_runs,
        doc="Maximum number of runs whose state a sequencer caches. It appends to them without reading first. 0 turns "
        "the cache off.",
    )
    cache_max_age_ms: int = setting(
        "OA_SEQUENCER_CACHE_MAX_AGE_MS",
        integer(0, 600_000),
        _SEQUENCER.cache_max_age_ms,
        doc="Maximum time for which the cache is used without reading the database's clock.",
    )
    overloaded_retry_ms: int = setting(
        "OA_SEQUENCER_OVERLOADED_RETRY_MS",
        integer(1, 60_000),
        _SEQUENCER.overloaded_retry_ms,
        doc="Wait that a caller is asked for when the queue is full.",
    )

    def limits(self) -> SequencerLimits:
        """The settings as `SequencerLimits`."""
        return SequencerLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class TailSettings:
    """How much of the newest log is kept in memory, and how it is read."""

    ring_entries: int = setting(
        "OA_TAIL_RING_ENTRIES",
        integer(1, 1_000_000),
        _TAIL.ring_entries,
        doc="Maximum number of a partition's newest entries that are kept in memory.",
    )
    ring_bytes: int = setting(
        "OA_TAIL_RING_BYTES",
        integer(1024, 1 << 30),
        _TAIL.ring_bytes,
        doc="Maximum size of a partition's newest entries that are kept in memory.",
    )
    page_entries: int = setting(
        "OA_TAIL_PAGE_ENTRIES",
        integer(1, 10_000),
        _TAIL.page_entries,
        doc="Maximum number of entries in one read, and in one message of a tail.",
    )
    page_bytes: int = setting(
        "OA_TAIL_PAGE_BYTES",
        integer(1024, 4 << 20),
        _TAIL.page_bytes,
        doc="Maximum size of one read, and of one message of a tail.",
    )
    poll_interval_ms: int = setting(
        "OA_TAIL_POLL_MS",
        integer(10, 600_000),
        _TAIL.poll_interval_ms,
        doc="Interval between reads of the partitions' heads, which make up for lost notifications.",
    )
    repair_retry_ms: int = setting(
        "OA_TAIL_REPAIR_RETRY_MS",
        integer(10, 60_000),
        _TAIL.repair_retry_ms,
        doc="Pause after a failed read of the log.",
    )

    def limits(self) -> TailLimits:
        """The settings as `TailLimits`."""
        return TailLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class FanoutSettings:
    """How replicas learn of each other's commits."""

    nats_url: Secret | None = setting(
        "OA_FANOUT_NATS_URL",
        nats_url(),
        None,
        doc="NATS server over which replicas announce commits to each other. If it is not set, Postgres announces "
        "each commit.",
    )
    subject: str = setting(
        "OA_FANOUT_SUBJECT",
        text(100),
        "openagents.runtime.log",
        doc="NATS subject for the announcements of OA_FANOUT_NATS_URL. Give each installation on the same server a "
        "subject of its own.",
    )


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """How much a stream of live frames and a page of history may hold."""

    pending_bytes: int = setting(
        "OA_TOPICS_PENDING_BYTES",
        integer(1024, 1 << 30),
        _TOPICS.pending_bytes,
        doc="Maximum size of the frames that wait for one Watch stream. More are dropped, and the caller replays.",
    )
    watched_topics: int = setting(
        "OA_TOPICS_WATCHED",
        integer(1, 10_000_000),
        _TOPICS.watched_topics,
        doc="Maximum number of topics on one Watch stream.",
    )
    page_frames: int = setting(
        "OA_TOPICS_PAGE_FRAMES",
        integer(1, 5000),
        _TOPICS.page_frames,
        doc="Maximum number of frames in a replay page when the caller names no number.",
    )
    page_bytes: int = setting(
        "OA_TOPICS_PAGE_BYTES",
        integer(1024, 4 << 20),
        _TOPICS.page_bytes,
        doc="Maximum size of a replay page when the caller names none.",
    )

    def limits(self) -> TopicLimits:
        """The settings as `TopicLimits`, without polling, because the tail learns of every commit."""
        return TopicLimits(poll_interval_ms=0, **vars(self))


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """When workers are silent, lost or late."""

    heartbeat_interval_ms: int = setting(
        "OA_WORKER_HEARTBEAT_MS",
        integer(10, 600_000),
        _WORKERS.heartbeat_interval_ms,
        doc="Interval between a worker's heartbeats.",
    )
    quiet_after_ms: int = setting(
        "OA_WORKER_QUIET_MS",
        integer(10, 600_000),
        _WORKERS.quiet_after_ms,
        doc="Time without a heartbeat after which a worker gets no new runs.",
    )
    lost_after_ms: int = setting(
        "OA_WORKER_LOST_MS",
        integer(10, 3_600_000),
        _WORKERS.lost_after_ms,
        doc="Time without a heartbeat after which a worker counts as lost.",
    )
    watch_interval_ms: int = setting(
        "OA_WORKER_WATCH_MS",
        integer(10, 60_000),
        _WORKERS.watch_interval_ms,
        doc="Interval between checks for lost workers and overdue cancels.",
    )
    watch_page: int = setting(
        "OA_WORKER_WATCH_PAGE",
        integer(1, 10_000),
        _WORKERS.watch_page,
        doc="Maximum number of leases or cancels that one check handles.",
    )
    dispatch_interval_ms: int = setting(
        "OA_DISPATCH_INTERVAL_MS",
        integer(10, 60_000),
        _WORKERS.dispatch_interval_ms,
        doc="Interval between checks for waiting runs when nothing else triggers one.",
    )
    dispatch_page: int = setting(
        "OA_DISPATCH_PAGE",
        integer(1, 1_000),
        _WORKERS.dispatch_page,
        doc="Maximum number of runs that one check gives to a worker.",
    )
    pending_appends: int = setting(
        "OA_WORKER_PENDING_APPENDS",
        integer(1, 100_000),
        _WORKERS.pending_appends,
        doc="Maximum number of a stream's appends that wait for their commit. At that number the replica stops "
        "reading the stream.",
    )
    pending_notices: int = setting(
        "OA_WORKER_PENDING_NOTICES",
        integer(1, 1_000_000),
        _WORKERS.pending_notices,
        doc="Maximum number of messages to a worker that wait because it does not read. From that number on, the "
        "replica stops reading the worker's stream.",
    )
    hello_ms: int = setting(
        "OA_WORKER_HELLO_MS",
        integer(10, 600_000),
        _WORKERS.hello_ms,
        doc="Time within which a new stream has to introduce its worker.",
    )
    end_ms: int = setting(
        "OA_WORKER_END_MS",
        integer(10, 600_000),
        _WORKERS.end_ms,
        doc="Time that a worker has to take the last messages of a stream that is over; then the stream is cut.",
    )
    max_streams_of_org: int = setting(
        "OA_WORKER_MAX_STREAMS_OF_ORG",
        integer(1, 1_000_000),
        _WORKERS.max_streams_of_org,
        doc="Maximum number of streams of an org's workers on one replica. More are refused.",
    )
    retry_initial_ms: int = setting(
        "OA_ATTEMPT_BACKOFF_MS",
        integer(0, 3_600_000),
        _WORKERS.retry_initial_ms,
        doc="Pause before another worker gets a run whose worker disappeared without saying goodbye. Each loss "
        "doubles it.",
    )
    retry_max_ms: int = setting(
        "OA_ATTEMPT_BACKOFF_MAX_MS",
        integer(0, 3_600_000),
        _WORKERS.retry_max_ms,
        doc="Maximum pause before another worker gets a run whose worker disappeared.",
    )
    read_page_events: int = setting(
        "OA_WORKER_READ_PAGE_EVENTS",
        integer(1, 100_000),
        _WORKERS.read_page_events,
        doc="Maximum number of events in a page of a run that a worker reads.",
    )
    read_page_bytes: int = setting(
        "OA_WORKER_READ_PAGE_BYTES",
        integer(1, 3 << 20),
        _WORKERS.read_page_bytes,
        doc="Maximum size of a page of a run that a worker reads. It always has at least one event.",
    )
    ended_kept_days: int = setting(
        "OA_WORKER_RETENTION_DAYS",
        integer(1, 36_500),
        _WORKERS.ended_kept_days,
        doc="Number of days after which a worker that has ended is removed, with its topic. They count from its last "
        "sign of life.",
    )
    sweep_interval_ms: int = setting(
        "OA_WORKER_SWEEP_MS",
        integer(1_000, 86_400_000),
        _WORKERS.sweep_interval_ms,
        doc="Pause between two checks for workers to remove (OA_WORKER_RETENTION_DAYS).",
    )
    swept_page: int = setting(
        "OA_WORKER_SWEEP_PAGE",
        integer(1, 10_000),
        _WORKERS.swept_page,
        doc="Maximum number of ended workers that one statement looks at.",
    )
    drain_reconnect_ms: int = setting(
        "OA_WORKER_DRAIN_RECONNECT_MS",
        integer(0, 60_000),
        _WORKERS.drain_reconnect_ms,
        doc="How long a draining replica asks workers to wait before they reconnect.",
    )

    def problems(self) -> Iterator[Problem]:
        """Report that a live worker would have no time to be heard."""
        if self.lost_after_ms <= 2 * self.heartbeat_interval_ms or self.lost_after_ms <= 4 * self.watch_interval_ms:
            text = (
                "a worker that lives would have no time to be heard; "
                "set OA_WORKER_LOST_MS to more than 2 times OA_WORKER_HEARTBEAT_MS and 4 times OA_WORKER_WATCH_MS"
            )
            yield "OA_WORKER_LOST_MS", text

    def limits(self) -> WorkerLimits:
        """The settings as `WorkerLimits`."""
        return WorkerLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """Limits of the requests that runs make to people."""

    max_requests: int = setting(
        "OA_RUN_MAX_REQUESTS",
        integer(1, 100_000),
        _REQUESTS.max_requests,
        doc="Maximum number of a run's requests that are listed: open ones first, then those settled last.",
    )
    page_bytes: int = setting(
        "OA_REQUESTS_PAGE_BYTES",
        integer(1, 64 << 20),
        _REQUESTS.page_bytes,
        doc="Maximum size of the events that one read of a run's requests takes.",
    )

    def limits(self) -> RequestLimits:
        """The settings as `RequestLimits`."""
        return RequestLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """Limits of the children of runs."""

    max_children: int = setting(
        "OA_RUN_MAX_CHILDREN",
        integer(0, 1_000_000),
        _CHILDREN.max_children,
        doc="Maximum number of children of a run.",
    )
    max_depth: int = setting(
        "OA_RUN_MAX_DEPTH",
        integer(1, 1_000),
        _CHILDREN.max_depth,
        doc="Maximum number of ancestors of a run.",
    )

    def limits(self) -> ChildLimits:
        """The settings as `ChildLimits`."""
        return ChildLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How receipts are merged into the log of receipts."""

    page: int = setting(
        "OA_MERGE_PAGE",
        integer(1, 100_000),
        _MERGE.page,
        doc="Maximum number of receipts that one transaction merges into the log of receipts.",
    )
    pause_ms: int = setting(
        "OA_MERGE_PAUSE_MS",
        integer(0, 60_000),
        _MERGE.pause_ms,
        doc="Wait before the receipt of a finished run is merged. Runs that finish within it share a checkpoint.",
    )
    poll_ms: int = setting(
        "OA_MERGE_POLL_MS",
        integer(10, 600_000),
        _MERGE.poll_ms,
        doc="Interval between checks for receipts when nothing else triggers one.",
    )

    def limits(self) -> MergeLimits:
        """The settings as `MergeLimits`."""
        return MergeLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """How replay artifacts are served."""

    page_bytes: int = setting(
        "OA_REPLAY_PAGE_BYTES",
        integer(1, 4 << 20),
        _REPLAY.page_bytes,
        doc="Maximum size of the part of an artifact in one answer.",
    )
    cache_bytes: int = setting(
        "OA_REPLAY_CACHE_BYTES",
        integer(0, 1 << 50),
        _REPLAY.cache_bytes,
        doc="Maximum size of the artifacts that stay on the temporary disk after a read. One artifact stays "
        "regardless of its size.",
    )
    cache_artifacts: int = setting(
        "OA_REPLAY_CACHE_ARTIFACTS",
        integer(1, 100_000),
        _REPLAY.cache_artifacts,
        doc="Maximum number of artifacts that stay on the temporary disk after a read. Each is an open file.",
    )

    def limits(self) -> ReplayLimits:
        """The settings as `ReplayLimits`."""
        return ReplayLimits(**vars(self))


_OTHER_CONNECTIONS = 2
"""Minimum number of connections for reads and background tasks."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings(ServiceSettings):
    """The runtime."""

    service: ClassVar[str] = "runtime"
    database: DatabaseSettings = group(DatabaseSettings)
    jwks: JwksSettings = group(JwksSettings)
    revocations: RevocationSettings = group(RevocationSettings)
    client: GrpcClientSettings = group(GrpcClientSettings)
    receipt_key: Secret = setting(
        "OA_RECEIPT_KEY",
        secret_text("an Ed25519 private key in PEM"),
        doc="Key that signs the receipts of runs and the log of receipts.",
    )
    previous_receipt_key: Secret | None = setting(
        "OA_PREVIOUS_RECEIPT_KEY",
        secret_text("an Ed25519 private key in PEM"),
        None,
        doc="The key that OA_RECEIPT_KEY had before. It endorses the new one, so that clients that have pinned it "
        "trust the new one. Once a replica has started with both, the endorsement is stored and the variable can go.",
    )
    worker_address: Address | None = setting(
        "OA_WORKER_GRPC_ADDRESS",
        address(),
        None,
        doc="Address of a port for workers only, with the certificate for outside callers. If it is not set, "
        "workers attach at OA_GRPC_ADDRESS, where OA_TLS_CERT_FILE would keep them out.",
    )
    edge_tls: EdgeTlsSettings = group(EdgeTlsSettings)
    runs: RunSettings = group(RunSettings)
    sequencer: SequencerSettings = group(SequencerSettings)
    tail: TailSettings = group(TailSettings)
    fanout: FanoutSettings = group(FanoutSettings)
    frames: FrameSettings = group(FrameSettings)
    topics: TopicSettings = group(TopicSettings)
    workers: WorkerSettings = group(WorkerSettings)
    requests: RequestSettings = group(RequestSettings)
    children: ChildSettings = group(ChildSettings)
    schedules: ScheduleSettings = group(ScheduleSettings)
    merge: MergeSettings = group(MergeSettings)
    replay: ReplaySettings = group(ReplaySettings)
    artifacts: ArtifactSettings = group(ArtifactSettings)
    archive: ArchiveSettings = group(ArchiveSettings)
    artifact_cache: ArtifactCacheSettings = group(ArtifactCacheSettings)
    quarantine: QuarantineSettings = group(QuarantineSettings)

    def problems(self) -> Iterator[Problem]:
        """Report, beside what no service takes, a receipt key that can't be used, a port of workers that anybody could
        listen in on, and settings that contradict each other."""
        yield from super().problems()
        yield from unusable_key("OA_RECEIPT_KEY", self.receipt_key.reveal())
        if self.previous_receipt_key is not None:
            yield from unusable_key("OA_PREVIOUS_RECEIPT_KEY", self.previous_receipt_key.reveal())
            if is_same_key(self.previous_receipt_key.reveal(), self.receipt_key.reveal()):
                text = "OA_PREVIOUS_RECEIPT_KEY is the key in OA_RECEIPT_KEY; give it the one before, or remove it"
                yield "OA_PREVIOUS_RECEIPT_KEY", text
        if self.worker_address:
            certificate, needed = self.edge_tls.cert_file, "OA_EDGE_TLS_CERT_FILE"
            yield from self.tls.open_listener(self.worker_address, "OA_WORKER_GRPC_ADDRESS", certificate, needed)
        enough = self.sequencer.writers + _OTHER_CONNECTIONS
        if self.database.pool_max < enough:
            text = (
                f"each of OA_SEQUENCER_WRITERS keeps a connection, and {_OTHER_CONNECTIONS} are for the rest; "
                f"set OA_DATABASE_POOL_MAX to at least {enough}"
            )
            yield "OA_DATABASE_POOL_MAX", text
        if self.tls.cert_file and not self.worker_address:
            text = (
                "with OA_TLS_CERT_FILE every caller at OA_GRPC_ADDRESS needs a certificate, which workers don't have; "
                "set OA_WORKER_GRPC_ADDRESS"
            )
            yield "OA_WORKER_GRPC_ADDRESS", text

    def production_problems(self) -> Iterator[Problem]:
        """Report a receipt key that could be guessed."""
        yield from weak_key("OA_RECEIPT_KEY", self.receipt_key.reveal())
        if self.previous_receipt_key is not None:
            yield from weak_key("OA_PREVIOUS_RECEIPT_KEY", self.previous_receipt_key.reveal())
