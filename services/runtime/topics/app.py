"""Topics that the runtime serves: `run:{id}:events` from the log, `worker:{id}:lifecycle` from the workers' events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_khala.frames import TopicState
from oa_khala.topics import RUN_EVENTS, WORKER_LIFECYCLE, Source, Topic, TopicClass
from oa_platform.health.failures import note_survived
from oa_platform.telemetry.tracing import sampled_traceparent
from oa_runlog import wire
from oa_runlog.proof.chain import chain_start
from oa_topics.hub import TopicHub
from oa_topics.store import StateAt, TopicDescription
from oa_topics.watcher import Origin
from services.runtime.archive.app.archive import Archived, ArchiveRecords, note_damage
from services.runtime.authority.app import Lineage
from services.runtime.log.app.ports import RunExcerpts, RunPages
from services.runtime.log.domain.records import LogRecord, RunExcerpt
from services.runtime.topics import metrics
from services.runtime.topics.domain import RunStanding, WorkerStanding

_log = structlog.get_logger(__name__)


class Standings(Protocol):
    """Where runs stand."""

    async def standings(self, run_ids: Sequence[str]) -> list[RunStanding]:
        """Where these runs stand; those that don't exist are left out."""
        ...

    async def chain_at(self, run_id: str, seq: int) -> bytes | None:
        """The chain value at an event of a run; None if the event is neither in the log nor the newest one."""
        ...


class WorkerEvents(Protocol):
    """The events of workers."""

    async def standings(self, worker_ids: Sequence[str]) -> list[WorkerStanding]:
        """Where these workers' events stand; workers that don't exist are left out."""
        ...

    async def page(self, worker_id: str, after_seq: int, max_events: int) -> Sequence[tuple[int, bytes]]:
        """Events of a worker, in order: seq and document."""
        ...


class ClassOfTopics(Protocol):
    """One class of the runtime's topics. Everything except `describe` is as in `oa_topics.store.TopicStore`."""

    async def describe(self, epoch: str, topics: Mapping[str, Topic]) -> Sequence[TopicDescription]:
        """Where these topics stand, each by the id in its name; those that don't exist are left out."""
        ...

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        ...

    async def snapshot(self, topic: Topic) -> StateAt | None:
        """See TopicStore. No snapshot has a list's documents."""
        ...

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        ...

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The means to make the snapshot of a run: `records` has what is in the archive, `encode` writes the document."""

    records: ArchiveRecords
    encode: Callable[[RunExcerpt, Archived | None], bytes]


class RuntimeTopics:
    """`oa_topics.store.TopicStore` over all classes that the runtime serves."""

    source: Source = "runtime"

    def __init__(self, classes: Mapping[TopicClass, ClassOfTopics], lineage: Lineage) -> None:
        self._classes = classes
        self._lineage = lineage

    async def epoch(self) -> str:
        """See TopicStore. Reads on a new connection come after the lineage was confirmed on it."""
        return self._lineage.epoch

    async def describe(self, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        """See TopicStore."""
        epoch = self._lineage.epoch
        found: dict[Topic, TopicDescription] = {}
        for topic_class, served in self._classes.items():
            by_id = {topic.subject_id: topic for topic in topics if topic.topic_class is topic_class}
            if by_id:
                found.update((one.topic, one) for one in await served.describe(epoch, by_id))
        return found

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return await self._classes[topic.topic_class].page(topic, after_seq, max_events, max_bytes)

    async def snapshot(self, topic: Topic, max_bytes: int) -> StateAt | None:
        """See TopicStore."""
        return await self._classes[topic.topic_class].snapshot(topic)

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        return await self._classes[topic.topic_class].chain_at(topic, seq)

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return self._classes[topic.topic_class].missing(topic, seq)


class RunTopics:
    """`ClassOfTopics`: each run is a topic."""

    def __init__(self, events: RunPages, standings: Standings, excerpts: RunExcerpts, snapshots: Snapshots) -> None:
        self._events = events
        self._standings = standings
        self._excerpts = excerpts
        self._snapshots = snapshots

    async def describe(self, epoch: str, topics: Mapping[str, Topic]) -> Sequence[TopicDescription]:
        """See ClassOfTopics."""
        return [
            TopicDescription(
                topics[run.run_id],
                TopicState(epoch, run.floor, run.latest_seq, snapshot_on_request=True),
                run.user_id,
                run.org_id,
            )
            for run in await self._standings.standings(list(topics))
        ]

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore."""
        return await self._events.run_page(topic.subject_id, after_seq, max_events, max_bytes)

    async def snapshot(self, topic: Topic) -> StateAt | None:
        """See TopicStore. If the events are in the archive, the snapshot says so."""
        found = await self._excerpts.excerpt(topic.subject_id)
        if found is None:
            return None
        state = found.run.state
        archived = await self._snapshots.records.find(state.run_id) if found.run.floor else None
        return StateAt(state.latest_seq, self._snapshots.encode(found, archived), state.chain_head)

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore."""
        return await self._standings.chain_at(topic.subject_id, seq) if seq else chain_start(topic.subject_id)

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        note_damage("is neither in the log nor in the archive", topic=str(topic), seq=seq)
        text = "an event of the run is neither in the log nor in the archive; ask the operators to restore the archive"
        return Refusal("archive_damaged", text, field="after_seq", metadata={"seq": str(seq)})


class WorkerTopics:
    """`ClassOfTopics`: each worker is a topic, of its org."""

    def __init__(self, events: WorkerEvents) -> None:
        self._events = events

    async def describe(self, epoch: str, topics: Mapping[str, Topic]) -> Sequence[TopicDescription]:
        """See ClassOfTopics."""
        return [
            TopicDescription(topics[one.worker_id], TopicState(epoch, one.floor, one.head), "", one.org_id)
            for one in await self._events.standings(list(topics))
        ]

    async def page(self, topic: Topic, after_seq: int, max_events: int, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """See TopicStore. Events are small, so their number bounds their bytes."""
        return await self._events.page(topic.subject_id, after_seq, max_events)

    async def snapshot(self, topic: Topic) -> StateAt | None:
        """See TopicStore. None: a worker's history is short and is read from its floor."""
        return None

    async def chain_at(self, topic: Topic, seq: int) -> bytes | None:
        """See TopicStore. Workers' events have no chain."""
        return None

    def missing(self, topic: Topic, seq: int) -> Refusal:
        """See TopicStore."""
        return Refusal("internal", f"the events of {topic} have no seq {seq}; report it")


def is_worker_topic(topic: str) -> bool:
    """Whether the topic of this name is a worker's."""
    return topic.startswith(WORKER_LIFECYCLE.prefix)


class HubMetrics:
    """`oa_topics.hub.HubReport`."""

    def watching(self, difference: int) -> None:
        """See HubReport."""
        metrics.TOPICS_WATCHED.inc(difference)

    def dropped(self, frames: int) -> None:
        """See HubReport."""
        metrics.FRAMES_DROPPED.inc(frames)

    def failed(self, topic: str, error: Exception) -> None:
        """See HubReport."""
        note_survived(_log, "topic_not_read", error, topic=topic)


class LiveEvents:
    """A listener of the tail that hands its records to the hub."""

    def __init__(self, hub: TopicHub) -> None:
        self._hub = hub

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """Take new records, in the order of each run. If their commit is traced, its span is the current one."""
        traceparent = sampled_traceparent()
        for run_id, of_run in groupby(records, _run_id):
            topic = f"{RUN_EVENTS.prefix}{run_id}{RUN_EVENTS.suffix}"
            if self._hub.watches(topic):
                events = [(record.seq, record.data) for record in of_run]
                self._hub.publish(topic, events, _origin(events[0][1], traceparent))


def _origin(first: bytes, traceparent: str) -> Origin | None:
    recorded_ns = wire.recorded_ns(first)
    return Origin(recorded_ns, traceparent) if recorded_ns else None


def _run_id(record: LogRecord) -> str:
    return record.run_id
