"""The progress of the projection, for readiness, metrics and people. The tail writes it, everything else reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass
class Progress:
    """`applied` and `heads` are partition -> position; a head is the newest position that runtime has reported.

    `halted` is one word that says why nothing is applied any more; empty while entries may still be applied.
    """

    connected: bool = False
    caught_up_once: bool = False
    halted: str = ""
    applied: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    events: int = 0
    repeated_batches: int = 0
    drifts: int = 0
    journal_rows: int = 0
    reconnects: dict[str, int] = field(default_factory=dict)
    closed_because: str = "it has not been reached yet"

    def opened(self, applied: Mapping[int, int], heads: Mapping[int, int]) -> None:
        """Note that the tail stands at `applied` of a log that stands at `heads`."""
        self.connected = True
        self.applied = dict(applied)
        self.saw(heads)

    def saw(self, heads: Mapping[int, int]) -> None:
        """Note where the log stands, as runtime reported it."""
        self.heads = dict(heads)
        self._note_catch_up()

    def moved(self, partition: int, position: int, *, events: int, journal_rows: int, drifts: int) -> None:
        """Note that a batch has been committed."""
        self.batches += 1
        self.events += events
        self.journal_rows += journal_rows
        self.drifts += drifts
        self.applied[partition] = position
        self.heads[partition] = max(position, self.heads.get(partition, 0))
        self._note_catch_up()

    def followed(self, partition: int, position: int) -> None:
        """Note that another replica has applied the partition up to `position`."""
        self.applied[partition] = position
        self.heads[partition] = max(position, self.heads.get(partition, 0))
        self._note_catch_up()

    def closed(self, cause: str, because: str) -> None:
        """Note that the tail ended; it will be tried again unless it has halted."""
        self.connected = False
        self.closed_because = because
        self.reconnects[cause] = self.reconnects.get(cause, 0) + 1

    def halt(self, cause: str, because: str) -> None:
        """Note that the tail ended and will not be tried again."""
        self.halted = cause
        self.closed("refused", because)

    def lag(self, partition: int) -> int:
        """Entries of the partition that are in the log and not yet in the read model."""
        return max(0, self.heads.get(partition, 0) - self.applied.get(partition, 0))

    @property
    def not_ready_because(self) -> str:
        """Why readers should not come here; empty once the read models have been complete.

        Applied entries stay good to read, and other replicas apply to the same read models. So the end of a tail is no
        reason to refuse readers. `oa_projector_connected` and the lag show it.
        """
        if self.caught_up_once:
            return ""
        if self.halted:
            return f"the projection has stopped ({self.halted}): {self.closed_because}"
        if not self.connected:
            return f"not connected to runtime's log: {self.closed_because}"
        return "catching up with the log for the first time"

    def _note_catch_up(self) -> None:
        if self.connected and all(self.lag(partition) == 0 for partition in self.heads):
            self.caught_up_once = True


class ProgressCollector(Collector):
    """The metrics of a projection, read from its `Progress` when they are collected."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """All metrics; labels are partitions and causes, never ids."""
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
        halted = {progress.halted: 1} if progress.halted else {}
        yield _by("oa_projector_halted", "1 while the projection has stopped, by cause.", "cause", halted)
        yield GaugeMetricFamily(
            "oa_projector_connected", "1 while the projector follows the log.", value=float(progress.connected)
        )
        reconnects = CounterMetricFamily(
            "oa_projector_sessions_ended", "Sessions of reading the log that ended.", labels=["cause"]
        )
        for cause, count in progress.reconnects.items():
            reconnects.add_metric([cause], count)
        yield reconnects
        yield CounterMetricFamily("oa_projector_batches", "Batches committed.", value=progress.batches)
        yield CounterMetricFamily("oa_projector_events", "Events applied.", value=progress.events)
        yield CounterMetricFamily(
            "oa_projector_repeated_batches", "Batches that had been applied before.", value=progress.repeated_batches
        )
        yield CounterMetricFamily("oa_projector_journal_rows", "Rows added to journals.", value=progress.journal_rows)
        yield CounterMetricFamily(
            "oa_projector_drifts",
            "Summaries that were computed a second time with another result.",
            value=progress.drifts,
        )


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
