"""Data from runtime's log and the rules for it: one lineage, position after position, none left out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from oa_runlog.wire import StoredEvent


class HaltCause(enum.StrEnum):
    """Why the projection stopped, for metrics and logs. docs/runbooks/projection-stopped.md says what to do."""

    HOLE = "hole"
    UNDECODABLE = "undecodable"
    RUN_HOLE = "run_hole"
    INVALID_EVENT = "invalid_event"
    EPOCH_CHANGED = "epoch_changed"
    REWOUND = "rewound"
    """The log is shorter than the part of it that was applied."""
    EMPTIED = "emptied"
    """Nothing is left of what was applied, although the checkpoints are."""


class LogRefused(Exception):
    """The log breaks the rules of a log. The projection stops until a person has looked; it never skips anything."""

    def __init__(self, cause: HaltCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Consecutive entries of one partition; `events[0]` stands at `first_position`. Never empty.

    Whether an event can be read is found when it is applied: runtime may be of a later release.
    """

    partition: int
    first_position: int
    events: tuple[StoredEvent, ...]
    traceparent: str = ""
    """W3C trace context of the first traced commit among those of the entries; empty without one."""

    @property
    def last_position(self) -> int:
        """Position of the last entry."""
        return self.first_position + len(self.events) - 1


@dataclass(frozen=True, slots=True)
class LogState:
    """Where runtime's log stands: its lineage, and partition -> newest position."""

    epoch: str
    heads: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a projection has come in one partition: `position` is the last entry applied."""

    projection: str
    version: int
    partition: int
    log_epoch: str
    position: int


def after(applied: int, batch: LogBatch) -> LogBatch | None:
    """The part of `batch` that follows position `applied`; None when all of it has already been applied.

    Raises LogRefused(hole) when entries between `applied` and the batch are missing.
    """
    if batch.first_position > applied + 1:
        raise LogRefused(
            HaltCause.HOLE,
            f"partition {batch.partition}: position {applied + 1} was expected and {batch.first_position} came",
        )
    known = applied + 1 - batch.first_position
    if known >= len(batch.events):
        return None
    return replace(batch, first_position=applied + 1, events=batch.events[known:]) if known else batch


def joined(batches: list[LogBatch]) -> LogBatch:
    """Join consecutive batches of one partition into one."""
    events = tuple(event for batch in batches for event in batch.events)
    traceparent = next((batch.traceparent for batch in batches if batch.traceparent), "")
    return replace(batches[0], events=events, traceparent=traceparent)


def halves(batch: LogBatch) -> tuple[LogBatch, LogBatch]:
    """The two halves of a batch of at least two entries."""
    middle = len(batch.events) // 2
    second = replace(batch, first_position=batch.first_position + middle, events=batch.events[middle:])
    return replace(batch, events=batch.events[:middle]), second


def check_lineage(state: LogState, checkpoints: Mapping[int, Checkpoint]) -> None:
    """Check that the checkpoints belong to this log and lie within it. Raises LogRefused(epoch_changed | rewound)."""
    for partition, checkpoint in checkpoints.items():
        check_epoch(checkpoint.log_epoch, state.epoch)
        if checkpoint.position > state.heads[partition]:
            head = state.heads[partition]
            what = f"partition {partition}: {checkpoint.position} entries were applied, the log has {head}"
            raise LogRefused(HaltCause.REWOUND, what)


def check_filled(checkpoints: Iterable[Checkpoint], *, is_empty: bool) -> None:
    """Check that there is a read model if anything was applied to it. Raises LogRefused(emptied)."""
    applied = sum(checkpoint.position for checkpoint in checkpoints)
    if is_empty and applied:
        raise LogRefused(HaltCause.EMPTIED, f"{applied} entries were applied, and the read model is empty")


def check_epoch(expected: str, found: str) -> None:
    """Check that the epochs are equal. Raises LogRefused(epoch_changed)."""
    if expected != found:
        raise LogRefused(HaltCause.EPOCH_CHANGED, f"the log has epoch {found}; what was applied came from {expected}")
