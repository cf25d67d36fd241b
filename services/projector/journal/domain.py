"""The entries of a topic, and how new entries get their seq."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.projector.journal.limits import DOCUMENT_OVERHEAD_BYTES, SnapshotLimits


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A document to append to a topic, which gives it its seq. `about` is the run or worker that it describes."""

    topic: str
    about: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class NumberedEntry:
    """An entry with the seq that its topic gave it."""

    entry: JournalEntry
    seq: int


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One element of a topic; `payload` is a serialized document of the topic's class."""

    topic: str
    seq: int
    payload: bytes


class RowMark(NamedTuple):
    """A row of a topic, recognized by the SHA-256 of its payload."""

    topic: str
    seq: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """Where a topic stands. A topic that nothing has been written to has head 0 and floor 0."""

    floor: int
    head: int


@dataclass(frozen=True, slots=True)
class Looked:
    """Those topics that hold more than is kept, of some that were looked at up to `last`; None if there are no more."""

    due: Sequence[str]
    last: str | None


NOWHERE = TopicPosition(0, 0)


def added(entries: Sequence[JournalEntry]) -> Mapping[str, int]:
    """Topic -> the number by which `entries` raise its head."""
    return Counter(entry.topic for entry in entries)


def numbered(entries: Sequence[JournalEntry], heads: Mapping[str, int]) -> list[NumberedEntry]:
    """`entries` with their seqs, sorted by topic and seq; `heads` are the heads after `entries` have raised them."""
    by_topic: defaultdict[str, list[JournalEntry]] = defaultdict(list)
    for entry in entries:
        by_topic[entry.topic].append(entry)
    return [
        NumberedEntry(entry, heads[topic] - len(listed) + place)
        for topic, listed in sorted(by_topic.items())
        for place, entry in enumerate(listed, start=1)
    ]


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """The documents that a topic describes, oldest first; `older_left_out`: there are older ones that did not fit."""

    documents: tuple[bytes, ...]
    older_left_out: bool


def snapshot_of(newest: Sequence[bytes], limits: SnapshotLimits) -> DocumentSet:
    """The set of as many of `newest`, which come newest first, as fit."""
    taken: list[bytes] = []
    size = 0
    for document in newest[: limits.documents]:
        size += len(document) + DOCUMENT_OVERHEAD_BYTES
        if size > limits.bytes:
            break
        taken.append(document)
    return DocumentSet(tuple(reversed(taken)), len(taken) < len(newest))
