"""Limits of workers: when they are silent, lost or late."""

from __future__ import annotations

from dataclasses import dataclass, field

from oa_base.backoff import Backoff
from oa_platform.config.shared import QuarantineSettings

_DOUBLINGS = 12
"""Number of losses after which a pause no longer grows: the shortest pause has grown to more than an hour."""


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """When workers are silent, lost, or late."""

    heartbeat_interval_ms: int = 10_000
    """How often a worker sends a heartbeat."""
    quiet_after_ms: int = 15_000
    """Silence after which a worker gets no new runs."""
    lost_after_ms: int = 30_000
    """Silence after which a worker is lost."""
    watch_interval_ms: int = 1_000
    """Pause between looks for lost workers and late cancels."""
    watch_page: int = 500
    """Maximum number of leases or cancels that one look handles."""
    dispatch_interval_ms: int = 5_000
    """Pause between looks for waiting runs when nothing else triggers one."""
    dispatch_page: int = 50
    """Maximum number of runs that one look gives to a worker."""
    pending_appends: int = 256
    """Maximum number of appends of one stream that wait for their commit; at that number the stream is not read."""
    pending_notices: int = 1_024
    """Maximum number of notices that wait to be sent on a stream; from that number on the stream is not read, because
    what its worker sends may cause more."""
    hello_ms: int = 10_000
    """How long a new stream may take to introduce its worker."""
    end_ms: int = 5_000
    """How long a stream that is over waits for its worker to take the last notices."""
    max_streams_of_org: int = 4_000
    """Maximum number of streams of an org's workers on one replica."""
    retry_initial_ms: int = 1_000
    """Pause before a run whose worker was lost is given to another worker; each further loss doubles it."""
    retry_max_ms: int = 60_000
    """Maximum of such a pause."""
    read_page_events: int = 1_000
    """Maximum number of events in one page of a run that a worker holds."""
    read_page_bytes: int = 1 << 20
    """Maximum number of bytes of such a page; it always has at least one event."""
    ended_kept_days: int = 90
    """How long a worker that has ended is kept after its last sign of life."""
    sweep_interval_ms: int = 3_600_000
    """Pause between two sweeps of workers that ended longer ago."""
    swept_page: int = 500
    """Maximum number of ended workers that one statement of a sweep looks at."""
    drain_reconnect_ms: int = 100
    """Wait that a draining replica asks workers for."""
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    """How runs that can't be handled because of a defect are left out."""

    @property
    def late_after_ms(self) -> int:
        """Half of the lost limit. A replica that does not look for so long is absent. A replica whose looks fail for so
        long sends its workers elsewhere, and they have the other half to get there."""
        return self.lost_after_ms // 2

    @property
    def absent_after_ms(self) -> int:
        """A quarter of the lost limit, and at least two pauses between looks. If no replica accepts workers for so
        long, the authority is absent."""
        return max(self.lost_after_ms // 4, 2 * self.watch_interval_ms)

    def pauses_ms(self) -> list[int]:
        """The pause after the loss of attempt 1, 2, …; the last pause applies to all further attempts."""
        backoff = Backoff(self.retry_initial_ms, self.retry_max_ms)
        return [backoff.ceiling_ms(number) for number in range(_DOUBLINGS)]
