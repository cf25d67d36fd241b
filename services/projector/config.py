"""The projector's settings; docs/config.md is generated from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from oa_platform.config.loading import Problem, group, peer_port, setting
from oa_platform.config.parsers import Target, integer, target
from oa_platform.config.shared import (
    DatabaseSettings,
    FrameSettings,
    GrpcClientSettings,
    JwksSettings,
    QuarantineSettings,
    RevocationSettings,
    ServiceSettings,
    doc_of_target,
)
from oa_topics.store import TopicLimits
from services.projector.projection.limits import TailLimits
from services.projector.set_aside.limits import SetAsideLimits

_TAIL = TailLimits()
_SET_ASIDE = SetAsideLimits()
_MIN_CONNECTIONS = 2


@dataclass(frozen=True, kw_only=True)
class TailSettings:
    """How runtime's log is followed."""

    runtime: Target = setting("OA_RUNTIME_GRPC", target(), peer_port("runtime_grpc"), doc=doc_of_target("runtime"))
    batch_events: int = setting(
        "OA_PROJECTOR_BATCH_EVENTS",
        integer(1, 100_000),
        _TAIL.batch_events,
        doc="Number of events after which a transaction takes no further batch of the log.",
    )
    queue_batches: int = setting(
        "OA_PROJECTOR_PARTITION_BATCHES",
        integer(1, 10_000),
        _TAIL.queue_batches,
        doc="Maximum number of batches of one partition that wait before the stream is held back.",
    )
    backoff_min_ms: int = setting(
        "OA_PROJECTOR_BACKOFF_MIN_MS",
        integer(1, 600_000),
        _TAIL.backoff_min_ms,
        doc="Maximum length of the first pause before a new session.",
    )
    backoff_max_ms: int = setting(
        "OA_PROJECTOR_BACKOFF_MAX_MS",
        integer(1, 600_000),
        _TAIL.backoff_max_ms,
        doc="Maximum length of later pauses before a new session.",
    )
    heads_interval_ms: int = setting(
        "OA_PROJECTOR_HEADS_INTERVAL_MS",
        integer(10, 600_000),
        _TAIL.heads_interval_ms,
        doc="Interval between checks of the log's heads.",
    )
    set_aside_runs: int = setting(
        "OA_PROJECTOR_SET_ASIDE_RUNS",
        integer(0, 100_000),
        _SET_ASIDE.max_runs,
        doc="Maximum number of runs that are set aside because a defect keeps them from being applied. With more, the "
        "partition of the next one waits.",
    )

    def limits(self) -> TailLimits:
        """The limits for the tail."""
        return TailLimits(
            batch_events=self.batch_events,
            queue_batches=self.queue_batches,
            backoff_min_ms=self.backoff_min_ms,
            backoff_max_ms=self.backoff_max_ms,
            heads_interval_ms=self.heads_interval_ms,
        )

    def set_aside_limits(self) -> SetAsideLimits:
        """The limits for runs that are set aside."""
        return SetAsideLimits(max_runs=self.set_aside_runs)


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """How summary topics are served."""

    watched_topics: int = setting(
        "OA_PROJECTOR_WATCHED_TOPICS",
        integer(1, 10_000_000),
        100_000,
        doc="Maximum number of topics on one Watch stream.",
    )
    pending_bytes: int = setting(
        "OA_PROJECTOR_PENDING_BYTES",
        integer(1024, 1 << 30),
        8 << 20,
        doc="Maximum size of the frames that wait for one Watch stream; more are dropped and replayed later.",
    )
    poll_interval_ms: int = setting(
        "OA_PROJECTOR_POLL_INTERVAL_MS",
        integer(1, 60_000),
        500,
        doc="Interval between checks for what other replicas wrote to watched topics.",
    )
    page_frames: int = setting(
        "OA_PROJECTOR_PAGE_FRAMES",
        integer(1, 5000),
        500,
        doc="Number of frames in a page of history if a request names none.",
    )
    page_bytes: int = setting(
        "OA_PROJECTOR_PAGE_BYTES",
        integer(1024, 4 << 20),
        1 << 20,
        doc="Size of a page in bytes if a request names none.",
    )

    def limits(self) -> TopicLimits:
        """The limits for the hub."""
        return TopicLimits(
            watched_topics=self.watched_topics,
            pending_bytes=self.pending_bytes,
            page_frames=self.page_frames,
            page_bytes=self.page_bytes,
            poll_interval_ms=self.poll_interval_ms,
        )


@dataclass(frozen=True, kw_only=True)
class ProjectorSettings(ServiceSettings):
    """All settings of the projector."""

    service: ClassVar[str] = "projector"
    database: DatabaseSettings = group(DatabaseSettings)
    jwks: JwksSettings = group(JwksSettings)
    client: GrpcClientSettings = group(GrpcClientSettings)
    revocations: RevocationSettings = group(RevocationSettings)
    tail: TailSettings = group(TailSettings)
    topics: TopicSettings = group(TopicSettings)
    frames: FrameSettings = group(FrameSettings)
    quarantine: QuarantineSettings = group(QuarantineSettings)

    def problems(self) -> Iterator[Problem]:
        """Report, beside what no service takes, a pool that following workers would use up."""
        yield from super().problems()
        if self.database.pool_max < _MIN_CONNECTIONS:
            text = (
                "the replica that follows runtime's workers keeps a connection; "
                f"set OA_DATABASE_POOL_MAX to at least {_MIN_CONNECTIONS}"
            )
            yield "OA_DATABASE_POOL_MAX", text
