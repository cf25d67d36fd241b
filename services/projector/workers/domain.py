"""What to publish about reported workers, given what was published before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


class PublishedWorker(NamedTuple):
    """A worker that had not ended when it was last published: its org, and the document."""

    org_id: str
    document: bytes


@dataclass(frozen=True, slots=True)
class WorkerChanges:
    """The changes to store: workers whose state has changed, workers that have ended, and entries about all these."""

    standing: tuple[ToldWorker, ...]
    ended: tuple[str, ...]
    entries: tuple[JournalEntry, ...]


def changes(stored: Mapping[str, PublishedWorker], told: Iterable[ToldWorker]) -> WorkerChanges:
    """The changes that `told` makes; `stored`: by worker id, what was last published of workers that had not ended.

    A worker that had ended before it was first reported is left out. A worker whose org has no topic is left out. Of a
    worker that was removed after its end, runtime does not know the org: it is reported to the one that knows of it.
    """
    news: list[ToldWorker] = []
    entries: list[JournalEntry] = []
    for one in told:
        before = stored.get(one.worker_id)
        if one.has_ended if before is None else one.document == before.document:
            continue
        news.append(one)
        topic = _topic(one.org_id or (before.org_id if before else ""))
        if topic:
            entries.append(JournalEntry(topic, one.worker_id, one.document))
    standing = tuple(one for one in news if not one.has_ended)
    return WorkerChanges(standing, tuple(one.worker_id for one in news if one.has_ended), tuple(entries))


def _topic(org_id: str) -> str:
    try:
        return org_workers(org_id)
    except Refusal:
        return ""
