"""Named limits of journals and of the snapshots that stand for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from oa_khala.topics import ORG_RUNS, ORG_WORKERS, USER_NOTIFICATIONS, USER_RUNS, TopicClass

DOCUMENT_OVERHEAD_BYTES = 6
"""What a DocumentSet adds to each document at most."""


@dataclass(frozen=True, kw_only=True)
class SnapshotLimits:
    """How much of what a topic tells of is in its snapshot: the newest."""

    documents: int = 1_000
    """Maximum number of documents."""
    bytes: int = 512 * 1024
    """Maximum size of all of them: a snapshot of one message, which every client takes."""

    def within(self, max_bytes: int) -> SnapshotLimits:
        """The same for a snapshot of so many bytes, with as many more documents; 0 for these limits."""
        if not max_bytes:
            return self
        return SnapshotLimits(documents=max(1, self.documents * max_bytes // self.bytes), bytes=max_bytes)


@dataclass(frozen=True, slots=True)
class Retention:
    """What a class of topics keeps in its journal: the newest rows, as many and for as long as both allow."""

    rows: int
    age_s: int


_DAY_S = 24 * 3600
RETENTION: Mapping[TopicClass, Retention] = MappingProxyType(
    {
        # Their snapshots say what older rows said, so rows are for clients that were away for a while.
        USER_RUNS: Retention(1_000, 7 * _DAY_S),
        ORG_RUNS: Retention(5_000, 7 * _DAY_S),
        ORG_WORKERS: Retention(5_000, 7 * _DAY_S),
        USER_NOTIFICATIONS: Retention(1_000, 90 * _DAY_S),
    }
)
"""Class of topics -> what is kept. More than the replay budget, or nobody would ever be told of that."""

SWEEP_INTERVAL_S = 60.0
"""Pause between looks for rows that are kept no longer."""
SWEEP_TOPICS = 200
"""Maximum number of topics of one class that one look prunes."""
