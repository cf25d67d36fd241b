"""The log as if nothing had ever left it: rows of the log and events of archived runs, by position. Pure.

A page of it is cut three times: where a position is missing, where an artifact is not available, and where the page is
long enough. Each cut keeps the entries before it, so a page may lack entries at its end but never has a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

from oa_base.refusal import Refusal
from services.runtime.log.domain.records import LogRecord


class ArchivedEntry(NamedTuple):
    """An entry whose event is in the artifact of its run."""

    position: int
    run_id: str
    seq: int


Entry = LogRecord | ArchivedEntry
T = TypeVar("T", LogRecord, Entry)


def consecutive(after: int, entries: Sequence[T]) -> Sequence[T]:
    """Those of the entries, given in order of position, that follow `after` without a hole."""
    for count, entry in enumerate(entries):
        if entry.position != after + 1 + count:
            return entries[:count]
    return entries


def runs_needed(entries: Sequence[Entry]) -> list[str]:
    """The runs whose artifacts are needed, in the order of need."""
    return list(dict.fromkeys(entry.run_id for entry in entries if isinstance(entry, ArchivedEntry)))


def affordable(sizes: Sequence[int], max_count: int, max_bytes: int) -> int:
    """How many artifacts of these sizes, from the first on, are within both limits; the first one always counts."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if count and (count >= max_count or total > max_bytes):
            return count
    return len(sizes)


def available(entries: Sequence[Entry], at_hand: Collection[str]) -> Sequence[Entry]:
    """The entries before the first whose artifact is not at hand."""
    for count, entry in enumerate(entries):
        if isinstance(entry, ArchivedEntry) and entry.run_id not in at_hand:
            return entries[:count]
    return entries


def within(entries: Sequence[T], size_of: Callable[[T], int], max_bytes: int) -> Sequence[T]:
    """The first entries that are within `max_bytes`; the first one is always among them."""
    total = 0
    for count, entry in enumerate(entries):
        total += size_of(entry)
        if count and total > max_bytes:
            return entries[:count]
    return entries


def lost(partition: int, position: int) -> Refusal:
    """The Refusal for a reader of an entry that is neither in the log nor in the archive."""
    text = (
        f"entry {position} of partition {partition} is neither in the log nor in the archive; "
        "ask the operators to restore the archive"
    )
    return Refusal("archive_damaged", text, metadata={"partition": str(partition), "position": str(position)})
