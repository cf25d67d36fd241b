"""How events change the summaries of their runs: a pure function, so that the same log gives the same summaries.

The document of a summary is `openagents.projection.v1.RunSummary`; `RunSummary` is its content as plain values. A batch
of the log leads to a `Plan`: which documents to write, and what to publish on which topics. An event at or below a
summary's `latest_seq` is already known and changes nothing. When a run comes again from its first event, it is
projected again beside the stored summary; at the stored seq, both documents must have the same hash. Different bytes
are *drift*: it is recorded for people, and the stored document stays as it is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from oa_base.refusal import Refusal
from oa_khala.topics import org_runs, user_runs
from oa_runlog.events import (
    ProgressReported,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCall,
    Usage,
    titled,
)
from oa_runlog.state import MAX_TOTAL, RunStatus
from oa_runlog.state.transitions import next_status, trigger
from services.projector.journal.domain import JournalEntry
from services.projector.notifications.domain import Encode, notifications
from services.projector.places.domain import Place
from services.projector.projection.domain import HaltCause, LogRefused

PROJECTION = "run_summaries"
VERSION = 1
"""Increased when the code gives different documents for the same events: a new version is built beside the old one.

A member that only a new kind of event sets (`progress`) does not increase it: no earlier log has such an event, and an
earlier projector does not read past one (ADR 0022).
"""
PERSON_PREFIX = "usr_"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a list of runs shows it, as of event `latest_seq`.

    Times are nanoseconds since the Unix epoch. A time or `finish` that is None has not come yet. `worker_id` is that of
    the newest attempt. The counts stop at `oa_runlog.state.MAX_TOTAL`.
    """

    run_id: str
    user_id: str
    org_id: str
    title: str
    adapter: str
    thread_id: str
    status: RunStatus
    latest_seq: int
    create_ns: int
    start_ns: int | None = None
    finish_ns: int | None = None
    finish: RunFinished | None = None
    worker_id: str = ""
    attempt: int = 0
    text_bytes: int = 0
    tool_calls: int = 0
    total_tokens: int = 0
    progress: ProgressReported | None = None
    """The latest report of the newest attempt."""


def project(summary: RunSummary | None, event: RunEvent) -> RunSummary:
    """The summary after `event`; None stands for a run that has not been seen before.

    Raises LogRefused(run_hole) when the event is not the run's next, LogRefused(invalid_event) when the run's state
    machine does not allow it: then the authority did not write this log, and nothing may be built on it.
    """
    expected = 1 if summary is None else summary.latest_seq + 1
    if event.seq != expected:
        raise LogRefused(HaltCause.RUN_HOLE, f"{event.run_id}: seq {expected} was expected and {event.seq} came")
    status = next_status(None if summary is None else summary.status, event.body)
    if status is None:
        before = "no run" if summary is None else summary.status
        raise LogRefused(
            HaltCause.INVALID_EVENT, f"{event.run_id} seq {event.seq}: {trigger(event.body)} after {before}"
        )
    if summary is None:
        return _created(event, status)
    return replace(summary, status=status, latest_seq=event.seq, **_changes(summary, event))


def _created(event: RunEvent, status: RunStatus) -> RunSummary:
    assert isinstance(event.body, RunCreated)  # the table allows nothing else for a new run
    spec = titled(event.body.spec)  # the authority records every run with a title; other logs may not
    return RunSummary(
        run_id=event.run_id,
        user_id=event.body.user_id,
        org_id=event.body.org_id,
        title=spec.title,
        adapter=spec.adapter,
        thread_id=spec.thread_id,
        status=status,
        latest_seq=event.seq,
        create_ns=event.recorded_ns,
    )


def _changes(summary: RunSummary, event: RunEvent) -> dict[str, Any]:
    """The members of the summary that the event changes, besides status and seq."""
    match event.body:
        case RunStarted(worker_id=worker_id, attempt=attempt):
            first = event.recorded_ns if summary.start_ns is None else summary.start_ns
            # As far as is known, the work that a lost worker reported is done again.
            return {"worker_id": worker_id, "attempt": attempt, "start_ns": first, "progress": None}
        case RunFinished():
            # A page holds two hundred summaries; clients get an agent's result from the authority.
            return {"finish": replace(event.body, result_json=""), "finish_ns": event.recorded_ns}
        case TextDelta(data=data):
            return {"text_bytes": _plus(summary.text_bytes, len(data))}
        case ProgressReported() as progress:
            return {"progress": progress}
        case ToolCall():
            return {"tool_calls": _plus(summary.tool_calls, 1)}
        case Usage(input_tokens=read, output_tokens=written):
            return {"total_tokens": _plus(summary.total_tokens, read + written)}
        case _:
            return {}


def _plus(total: int, amount: int) -> int:
    return min(total + amount, MAX_TOTAL)


class Codec(Protocol):
    """Summary <-> document: a serialized `openagents.projection.v1.RunSummary`; equal summaries give equal bytes."""

    def encode(self, summary: RunSummary) -> bytes:
        """The document."""

    def decode(self, document: bytes) -> RunSummary:
        """The summary. Documents are our own, so one that does not parse is a defect (ValueError)."""


@dataclass(frozen=True, slots=True)
class StoredSummary:
    """A summary in the read model, and the SHA-256 of its document."""

    summary: RunSummary
    summary_hash: bytes


@dataclass(frozen=True, slots=True)
class SummaryWrite:
    """A document that replaces the run's stored one."""

    summary: RunSummary
    document: bytes
    summary_hash: bytes


@dataclass(frozen=True, slots=True)
class Drift:
    """The same run at the same seq, computed again with a different result."""

    run_id: str
    seq: int
    stored_hash: bytes
    computed_hash: bytes
    computed_document: bytes


@dataclass(frozen=True, slots=True)
class PersonalEntry:
    """An entry for a person about a run that they started in an org, published if they still have a place there."""

    place: Place
    entry: JournalEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes of a batch: for each run that it moved, one write and one entry on each topic of summaries; and one
    entry for each event that a person is told about."""

    writes: tuple[SummaryWrite, ...]
    of_orgs: tuple[JournalEntry, ...]
    of_persons: tuple[PersonalEntry, ...]
    drifts: tuple[Drift, ...]

    @property
    def places(self) -> set[Place]:
        """The places of the people who are told something."""
        return {personal.place for personal in self.of_persons}

    def entries(self, lost: Collection[Place] = ()) -> list[JournalEntry]:
        """The entries to publish; none for people who have lost their place."""
        return [*self.of_orgs, *(personal.entry for personal in self.of_persons if personal.place not in lost)]


@dataclass(frozen=True, slots=True)
class Encoders:
    """How documents are written."""

    summary: Callable[[RunSummary], bytes]
    notification: Encode


def plan_batch(stored: Mapping[str, StoredSummary], events: Iterable[RunEvent], encoders: Encoders) -> Plan:
    """Plan how `events`, in log order, change the summaries of their runs. Raises LogRefused, see `project`."""
    by_run: defaultdict[str, list[RunEvent]] = defaultdict(list)
    for event in events:
        by_run[event.run_id].append(event)
    writes: list[SummaryWrite] = []
    drifts: list[Drift] = []
    of_orgs: list[JournalEntry] = []
    of_persons: list[PersonalEntry] = []
    for run_id, own in by_run.items():
        known = stored.get(run_id)
        if known is not None and own[0].seq == 1:
            drifts.extend(_compare(known, own, encoders.summary))
        before = None if known is None else known.summary
        summary, fresh = _advance(before, own)
        if summary is not None and fresh:
            write = _write(summary, encoders.summary)
            writes.append(write)
            of_orgs.append(_entry(write, org_runs, summary.org_id))
            of_persons += _personal(write, fresh, encoders.notification)
    return Plan(tuple(writes), tuple(of_orgs), tuple(of_persons), tuple(drifts))


def _personal(write: SummaryWrite, fresh: Iterable[RunEvent], encode: Encode) -> list[PersonalEntry]:
    """The entries for the person who started the run: its summary and their notifications. A service account gets
    none."""
    summary = write.summary
    if not summary.user_id.startswith(PERSON_PREFIX):
        return []
    stands = _entry(write, user_runs, summary.user_id)
    place = summary.user_id, summary.org_id
    told = notifications(summary.user_id, summary.title, fresh, encode)
    return [PersonalEntry(place, entry) for entry in (stands, *told)]


def _entry(write: SummaryWrite, topic_of: Callable[[str], str], owner_id: str) -> JournalEntry:
    summary = write.summary
    try:
        return JournalEntry(topic_of(owner_id), summary.run_id, write.document)
    except Refusal as error:
        raise LogRefused(
            HaltCause.INVALID_EVENT, f"{summary.run_id}: its owner has no topic ({error.message})"
        ) from error


def _advance(summary: RunSummary | None, events: Iterable[RunEvent]) -> tuple[RunSummary | None, list[RunEvent]]:
    """The summary after the new events among `events`, and those new events."""
    latest = 0 if summary is None else summary.latest_seq
    fresh = [event for event in events if event.seq > latest]
    for event in fresh:
        summary = project(summary, event)
    return summary, fresh


def _compare(known: StoredSummary, events: list[RunEvent], encode: Callable[[RunSummary], bytes]) -> list[Drift]:
    """Project the run again up to the stored seq, as far as `events` reach, and compare there."""
    seq = known.summary.latest_seq
    again, _ = _advance(None, [event for event in events if event.seq <= seq])
    if again is None or again.latest_seq != seq:
        return []
    computed = _write(again, encode)
    if computed.summary_hash == known.summary_hash:
        return []
    return [Drift(again.run_id, seq, known.summary_hash, computed.summary_hash, computed.document)]


def _write(summary: RunSummary, encode: Callable[[RunSummary], bytes]) -> SummaryWrite:
    document = encode(summary)
    return SummaryWrite(summary, document, hashlib.sha256(document).digest())
