"""What a batch of the log does to the read model: which documents to write, what to say on which topics.

The rule for what is known already: an event at or below a summary's `latest_seq` changes nothing. When a run comes
again from its first event, it is projected again beside the stored summary; at the seq of that, both documents must
have the same hash. Other bytes are *drift*: recorded for people, while the stored document stays as it is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from oa_base.refusal import Refusal
from oa_khala.topics import org_runs, user_runs
from oa_runlog.events import RunEvent
from services.projector.domain.log import LogRefused
from services.projector.domain.run_summary import RunSummary, project

PERSON_PREFIX = "usr_"


class Codec(Protocol):
    """Summary <-> document: a serialized `openagents.projection.v1.RunSummary`, always the same bytes for the same."""

    def encode(self, summary: RunSummary) -> bytes:
        """The document."""

    def decode(self, document: bytes) -> RunSummary:
        """The summary; documents are our own, so one that does not parse is a defect (ValueError)."""


@dataclass(frozen=True, slots=True)
class StoredSummary:
    """What the read model holds: the summary, and SHA-256 of its document."""

    summary: RunSummary
    summary_hash: bytes


@dataclass(frozen=True, slots=True)
class SummaryWrite:
    """A document to store instead of the run's former one."""

    summary: RunSummary
    document: bytes
    summary_hash: bytes


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A document to append to a topic, which gives it its seq."""

    topic: str
    run_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Drift:
    """The same run at the same seq, computed again with another result."""

    run_id: str
    seq: int
    stored_hash: bytes
    computed_hash: bytes
    computed_document: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a batch changes. One write, and one entry on each topic, for each run that it moved."""

    writes: tuple[SummaryWrite, ...]
    entries: tuple[JournalEntry, ...]
    drifts: tuple[Drift, ...]


def plan_batch(
    stored: Mapping[str, StoredSummary], events: Iterable[RunEvent], encode: Callable[[RunSummary], bytes]
) -> Plan:
    """What `events`, in log order, do to the summaries of their runs. Raises LogRefused, see `project`."""
    by_run: defaultdict[str, list[RunEvent]] = defaultdict(list)
    for event in events:
        by_run[event.run_id].append(event)
    writes: list[SummaryWrite] = []
    drifts: list[Drift] = []
    for run_id, own in by_run.items():
        known = stored.get(run_id)
        if known is not None and own[0].seq == 1:
            drifts.extend(_compare(known, own, encode))
        summary = _advance(None if known is None else known.summary, own)
        if summary is not None:
            writes.append(_write(summary, encode))
    entries = [
        JournalEntry(topic, write.summary.run_id, write.document)
        for write in writes
        for topic in topics_of(write.summary)
    ]
    return Plan(tuple(writes), tuple(entries), tuple(drifts))


def topics_of(summary: RunSummary) -> tuple[str, ...]:
    """The topics that say how the run stands. A run that a service account started has no person's topic."""
    try:
        by_org = org_runs(summary.org_id)
        return (by_org, user_runs(summary.user_id)) if summary.user_id.startswith(PERSON_PREFIX) else (by_org,)
    except Refusal as error:
        raise LogRefused("invalid_event", f"{summary.run_id}: its owner has no topic ({error.message})") from error


def _advance(summary: RunSummary | None, events: Iterable[RunEvent]) -> RunSummary | None:
    """The summary after what is new among `events`; None when nothing is."""
    latest = 0 if summary is None else summary.latest_seq
    fresh = [event for event in events if event.seq > latest]
    for event in fresh:
        summary = project(summary, event)
    return summary if fresh else None


def _compare(known: StoredSummary, events: list[RunEvent], encode: Callable[[RunSummary], bytes]) -> list[Drift]:
    """Project the run again up to the stored seq, as far as `events` reach, and compare there."""
    seq = known.summary.latest_seq
    again = _advance(None, [event for event in events if event.seq <= seq])
    if again is None or again.latest_seq != seq:
        return []
    computed = _write(again, encode)
    if computed.summary_hash == known.summary_hash:
        return []
    return [Drift(again.run_id, seq, known.summary_hash, computed.summary_hash, computed.document)]


def _write(summary: RunSummary, encode: Callable[[RunSummary], bytes]) -> SummaryWrite:
    document = encode(summary)
    return SummaryWrite(summary, document, hashlib.sha256(document).digest())
