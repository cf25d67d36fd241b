"""Settings of the runtime. docs/config.md is made from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from oa_errors import Refusal
from oa_platform.config import group, setting
from oa_platform.parsers import Secret, integer, secret_text
from oa_platform.settings import DatabaseSettings, JwksSettings, ServiceSettings
from oa_runlog.decide import Limits
from services.runtime.app.limits import (
    ArchiveLimits,
    MergeLimits,
    ReplayLimits,
    SequencerLimits,
    ShelfLimits,
    TailLimits,
    TopicSettings,
    WorkerLimits,
)
from services.runtime.app.retention import RetentionClasses


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run may take. A refused append stores nothing."""

    max_event_bytes: int = setting("OA_RUN_MAX_EVENT_BYTES", integer(1024, 4 << 20), 256 << 10, doc="Largest event.")
    max_append_bytes: int = setting(
        "OA_RUN_MAX_APPEND_BYTES", integer(1024, 8 << 20), 1 << 20, doc="Most bytes of events in one append."
    )
    events_per_second: int = setting(
        "OA_RUN_EVENTS_PER_SECOND", integer(1, 1_000_000), 240, doc="Pace of one run's events."
    )
    # No lower than the contract's largest append: one that is larger than the burst could never pass.
    burst_events: int = setting(
        "OA_RUN_BURST_EVENTS", integer(500, 1_000_000), 500, doc="Events that a run may append at once, after a pause."
    )
    max_requeues: int = setting(
        "OA_RUN_MAX_REQUEUES", integer(0, 1000), 3, doc="How often a run starts again after its worker was lost."
    )
    cancel_deadline_ms: int = setting(
        "OA_RUN_CANCEL_DEADLINE_MS", integer(0, 3_600_000), 10_000, doc="Time that a worker has to end a canceled run."
    )

    def limits(self, retention: RetentionClasses) -> Limits:
        """The same for the code that decides, with the classes that a run can be given."""
        return Limits(
            max_event_bytes=self.max_event_bytes,
            max_append_bytes=self.max_append_bytes,
            events_per_second=self.events_per_second,
            burst_events=self.burst_events,
            max_requeues=self.max_requeues,
            cancel_deadline_ms=self.cancel_deadline_ms,
            retention_classes=retention.names,
        )


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings(ServiceSettings):
    """The runtime."""

    service: ClassVar[str] = "runtime"
    database: DatabaseSettings = group(DatabaseSettings)
    jwks: JwksSettings = group(JwksSettings)
    receipt_key: Secret = setting(
        "OA_RECEIPT_KEY",
        secret_text("an Ed25519 private key in PEM"),
        doc="Signs the receipts of runs, and the log of them.",
    )
    runs: RunSettings = group(RunSettings)
    sequencer: SequencerLimits = group(SequencerLimits)
    tail: TailLimits = group(TailLimits)
    topics: TopicSettings = group(TopicSettings)
    workers: WorkerLimits = group(WorkerLimits)
    merge: MergeLimits = group(MergeLimits)
    replay: ReplayLimits = group(ReplayLimits)
    archive: ArchiveLimits = group(ArchiveLimits)
    shelf: ShelfLimits = group(ShelfLimits)

    def __post_init__(self) -> None:
        """Whether they go together."""
        enough = self.sequencer.lanes + _OTHER_CONNECTIONS
        if self.database.pool_max < enough:
            text = (
                f"OA_DATABASE_POOL_MAX must be at least {enough}: each of OA_SEQUENCER_LANES keeps a connection, "
                f"and {_OTHER_CONNECTIONS} are for the rest"
            )
            raise Refusal("invalid_setting", text, field="OA_DATABASE_POOL_MAX")


_OTHER_CONNECTIONS = 2
"""Fewest connections for reads and for what runs in the background."""
