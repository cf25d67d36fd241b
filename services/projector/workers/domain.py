"""What is said of workers that have been told of, given what was said before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_khala.topics import org_workers
from services.projector.journal.domain import JournalEntry


@dataclass(frozen=True, slots=True)
class ToldWorker:
    """How a worker stands: a serialized `openagents.runtime.v1.Worker`, and what has to be known of it."""

    worker_id: str
    org_id: str
    has_ended: bool
    document: bytes


@dataclass(frozen=True, slots=True)
class WorkerChanges:
    """What is stored: the workers that stand otherwise, those that have ended, and what is said of all of these."""

    standing: tuple[ToldWorker, ...]
    ended: tuple[str, ...]
    entries: tuple[JournalEntry, ...]


def changes(stored: Mapping[str, bytes], told: Iterable[ToldWorker]) -> WorkerChanges:
    """What `told` changes; `stored`: worker id -> the document that was said last of one that had not ended.

    One that had ended before it was ever told of is nobody's news. A worker whose org has no topic is left out.
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
