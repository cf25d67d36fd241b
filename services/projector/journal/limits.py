"""Named limits of journals and of their snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from oa_khala.topics import ORG_RUNS, ORG_WORKERS, USER_NOTIFICATIONS, USER_RUNS, TopicClass

DOCUMENT_OVERHEAD_BYTES = 6
"""Maximum size that a DocumentSet adds to each document."""


MAX_REMEMBERED_COMMITS = 64
"""Maximum number of newest commits that are compared with the database. A loss takes the newest ones first, so these
are enough; they are more than commit at the same time."""


@dataclass(frozen=True, kw_only=True)
class SnapshotLimits:
    """How many of a topic's newest documents are in its snapshot."""

    documents: int = 1_000
    """Maximum number of documents."""
    bytes: int = 512 * 1024
    """Maximum size of all of them: a snapshot in one message, which every client accepts."""

    def within(self, max_bytes: int) -> SnapshotLimits:
        """The limits for a snapshot of `max_bytes`, with proportionally more documents; 0 for these limits."""
        if not max_bytes:
            return self
        return SnapshotLimits(documents=max(1, self.documents * max_bytes // self.bytes), bytes=max_bytes)


@dataclass(frozen=True, slots=True)
class Retention:
    """The rows that a class of topics keeps in its journal: the newest ones, as far as both limits allow."""

    rows: int
    age_s: int


_DAY_S = 24 * 3600
RETENTION: Mapping[TopicClass, Retention] = MappingProxyType(
    {
        # Snapshots contain what older rows said, so rows are for clients that were away for a while.
        USER_RUNS: Retention(1_000, 7 * _DAY_S),
        ORG_RUNS: Retention(5_000, 7 * _DAY_S),
        ORG_WORKERS: Retention(5_000, 7 * _DAY_S),
        USER_NOTIFICATIONS: Retention(1_000, 90 * _DAY_S),
    }
)
"""Class of topics -> the rows that are kept. More than the replay budget, or clients never hear of exceeding it."""

SWEEP_INTERVAL_S = 60.0
"""Pause between checks for rows that are no longer kept."""
SWEEP_TOPICS = 1_000
"""Maximum number of topics of one class that one statement looks at: a check takes as many statements as it needs."""
SWEEP_PAUSE_S = 1.0
"""Pause between two of these statements, so that a check costs the database no more at a time where there are very many
topics. What is no longer kept goes later then."""
