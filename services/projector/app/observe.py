"""What the projection shows of itself: log lines for what happens, metrics for how it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from oa_base.refusal import Refusal
from services.projector.app.ports import LogState
from services.projector.app.progress import Progress
from services.projector.app.tail import Report
from services.projector.domain.log import LogRefused

_log = structlog.get_logger(__name__)


class LoggedReport(Report):
    """The tail's sessions in the log. `projection_halted` is the line that alarms are made from."""

    def session_opened(self, state: LogState, applied: Mapping[int, int]) -> None:
        """With how much there is to catch up."""
        behind = sum(head - applied.get(partition, 0) for partition, head in state.heads.items())
        _log.info("tail_opened", epoch=state.epoch, partitions=len(state.heads), behind=behind)

    def session_ended(self, cause: str, error: Exception, retry_after_ms: int) -> None:
        """A warning: it heals by itself."""
        reason = error.reason if isinstance(error, Refusal) else cause
        _log.warning("tail_ended", cause=cause, reason=reason, detail=str(error), retry_after_ms=retry_after_ms)

    def halted(self, refused: LogRefused) -> None:
        """An error: it does not."""
        _log.error("projection_halted", cause=refused.cause, detail=str(refused))


class ProgressCollector(Collector):
    """The metrics of a projection, read from its `Progress` when they are asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """All of them; labels are partitions and causes, never ids."""
        progress = self._progress
        yield _by(
            "oa_projector_lag_events",
            "Entries in the log that are not in the read model.",
            "partition",
            {str(partition): progress.lag(partition) for partition in progress.heads},
        )
        yield _by(
            "oa_projector_position",
            "Position of the last entry applied.",
            "partition",
            {str(partition): position for partition, position in progress.applied.items()},
        )
        halted = {} if progress.halted is None else {progress.halted.cause: 1}
        yield _by("oa_projector_halted", "1 while the projection has stopped, by cause.", "cause", halted)
        yield GaugeMetricFamily(
            "oa_projector_connected", "1 while the log is being tailed.", value=float(progress.connected)
        )
        reconnects = CounterMetricFamily("oa_projector_sessions_ended", "Sessions that ended.", labels=["cause"])
        for cause, count in progress.reconnects.items():
            reconnects.add_metric([cause], count)
        yield reconnects
        yield CounterMetricFamily("oa_projector_batches", "Batches committed.", value=progress.batches)
        yield CounterMetricFamily("oa_projector_events", "Events applied.", value=progress.events)
        yield CounterMetricFamily(
            "oa_projector_repeated_batches", "Batches that had been applied before.", value=progress.repeated_batches
        )
        yield CounterMetricFamily("oa_projector_journal_rows", "Rows given a seq.", value=progress.journal_rows)
        yield CounterMetricFamily(
            "oa_projector_drifts", "Summaries computed again with another result.", value=progress.drifts
        )


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
