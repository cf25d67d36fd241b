"""What to publish about reported workers, given what was published before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_khala.topics import org_workers
from services.projector.journal.domain import JournalEntry


@dataclass(frozen=True, slots=True)
class ToldWorker:
    """The state of a worker: a serialized `openagents.runtime.v1.Worker`, and the members that are needed here."""

    worker_id: str
    org_id: str
    has_ended: bool
    document: bytes


@dataclass(frozen=True, slots=True)
class WorkerChanges:
    """The changes to store: workers whose state has changed, workers that have ended, and entries about all these."""

    standing: tuple[ToldWorker, ...]
    ended: tuple[str, ...]
    entries: tuple[JournalEntry, ...]


def changes(stored: Mapping[str, bytes], told: Iterable[ToldWorker]) -> WorkerChanges:
    """The changes that `told` makes; `stored`: worker id -> last published document of a worker that had not ended.

    A worker that had ended before it was first reported is left out. A worker whose org has no topic is left out.
    """
    news = [
        one
        for one in told
        if stored.get(one.worker_id) != one.document and (one.worker_id in stored or not one.has_ended)
    ]
    entries = [JournalEntry(topic, one.worker_id, one.document) for one in news if (topic := _topic(one.org_id))]
    standing = tuple(one for one in news if not one.has_ended)
    return WorkerChanges(standing, tuple(one.worker_id for one in news if one.has_ended), tuple(entries))


def _topic(org_id: str) -> str:
    try:
        return org_workers(org_id)
    except Refusal:
        return ""
