"""How the projection is doing: what readiness, metrics and people ask. Written by the tail, read by everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.projector.domain.log import LogRefused


@dataclass
class Progress:
    """`applied` and `heads` are partition -> position; a head is the newest that runtime has told of."""

    connected: bool = False
    caught_up_once: bool = False
    halted: LogRefused | None = None
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
        """The tail stands at `applied` of a log that stands at `heads`."""
        self.connected = True
        self.applied = dict(applied)
        self.saw(heads)

    def saw(self, heads: Mapping[int, int]) -> None:
        """Runtime told where the log stands."""
        self.heads = dict(heads)
        self._note_catch_up()

    def moved(self, partition: int, position: int, events: int) -> None:
        """A batch has been committed."""
        self.batches += 1
        self.events += events
        self.applied[partition] = position
        self.heads[partition] = max(position, self.heads.get(partition, 0))
        self._note_catch_up()

    def closed(self, cause: str, because: str) -> None:
        """The tail ended; it will be tried again unless it has halted."""
        self.connected = False
        self.closed_because = because
        self.reconnects[cause] = self.reconnects.get(cause, 0) + 1

    def lag(self, partition: int) -> int:
        """Entries of the partition that are in the log and not yet in the read model."""
        return max(0, self.heads.get(partition, 0) - self.applied.get(partition, 0))

    @property
    def not_ready_because(self) -> str:
        """Why the projection is not what readers should rely on; empty when it is."""
        if self.halted is not None:
            return f"the projection has stopped ({self.halted.cause}): {self.halted}"
        if not self.connected:
            return f"not connected to runtime's log: {self.closed_because}"
        return "" if self.caught_up_once else "catching up with the log for the first time"

    def _note_catch_up(self) -> None:
        if self.connected and all(self.lag(partition) == 0 for partition in self.heads):
            self.caught_up_once = True
