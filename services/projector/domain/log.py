"""What the projector takes from runtime's log, and the one rule about it: position after position, none left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oa_runlog.events import RunEvent


class LogRefused(Exception):
    """The log is not what a log must be. The projection stops until a person has looked; it never steps over.

    `cause` is a word for metrics and logs: "hole", "epoch_changed", "rewound" (the log is shorter than what was applied
    of it), "undecodable", "run_hole", "invalid_event".
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Consecutive entries of one partition; `events[0]` stands at `first_position`. Never empty."""

    partition: int
    first_position: int
    events: tuple[RunEvent, ...]

    @property
    def last_position(self) -> int:
        """Position of the last entry."""
        return self.first_position + len(self.events) - 1


def after(applied: int, batch: LogBatch) -> LogBatch | None:
    """The part of `batch` that follows position `applied`; None when all of it has been applied before.

    Raises LogRefused(hole) when entries between `applied` and the batch are missing.
    """
    if batch.first_position > applied + 1:
        raise LogRefused(
            "hole",
            f"partition {batch.partition}: position {applied + 1} was expected and {batch.first_position} came",
        )
    known = applied + 1 - batch.first_position
    if known >= len(batch.events):
        return None
    return replace(batch, first_position=applied + 1, events=batch.events[known:]) if known else batch


def joined(batches: list[LogBatch]) -> LogBatch:
    """Batches of one partition, each following the one before, as one."""
    first = batches[0]
    return replace(first, events=tuple(event for batch in batches for event in batch.events))
