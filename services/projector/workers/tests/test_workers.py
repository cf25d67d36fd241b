"""The workers of an org on its topic: what is said, by which replica, and the conformance of the topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_khala.topics import ORG_WORKERS
from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import eventually
from oa_topics.tests.conformance import Source, TopicSourceSuite
from services.projector.journal.store import PostgresJournalWriter
from services.projector.tests import histories as h
from services.projector.tests.doors import Doors, as_gateway
from services.projector.tests.rig import Rig
from services.projector.workers.app import WorkersFollower
from services.projector.workers.domain import PublishedWorker, ToldWorker, changes
from services.projector.workers.limits import WorkersLimits
from services.projector.workers.store import PostgresTurns

OURS = f"org:{h.ORG}:workers"
QUICK = WorkersLimits(backoff_min_ms=1, backoff_max_ms=10, turn_interval_ms=10)


def told(number: int, document: bytes, org_id: str = h.ORG, ended: bool = False) -> ToldWorker:
    return ToldWorker(h.ulid("wrk", number), org_id, ended, document)


def turns_of(postgres: Postgres) -> PostgresTurns:
    return PostgresTurns(postgres, PostgresJournalWriter)


async def said(rig: Rig, topic: str = OURS) -> list[bytes]:
    """What the topic says, from its start."""
    return [row.payload for row in await rig.journal.page(topic, 0, 10_000)]


def test_only_what_is_new_is_said() -> None:
    one, same, back = told(1, b"new"), told(2, b"same"), told(3, b"x", ended=True)
    stored = {each.worker_id: document for each, document in ((one, b"old"), (same, b"same"), (back, b"y"))}
    news = changes({worker_id: PublishedWorker(h.ORG, each) for worker_id, each in stored.items()}, [one, same, back])
    assert news.standing == (one,)
    assert news.ended == (back.worker_id,)
    assert [(entry.topic, entry.about, entry.payload) for entry in news.entries] == [
        (OURS, one.worker_id, b"new"),
        (OURS, back.worker_id, b"x"),
    ]


def test_the_end_of_one_that_was_removed_meanwhile_is_said_to_the_org_that_was_told_of_it() -> None:
    gone = told(7, b"stopped", org_id="", ended=True)  # runtime knows no more than its id
    news = changes({gone.worker_id: PublishedWorker(h.ORG, b"running")}, [gone])
    assert (news.standing, news.ended) == ((), (gone.worker_id,))
    assert [(entry.topic, entry.payload) for entry in news.entries] == [(OURS, b"stopped")]


def test_who_ended_before_it_was_told_of_is_nobodys_news_and_an_org_without_a_topic_has_none() -> None:
    assert changes({}, [told(1, b"x", ended=True)]).entries == ()
    news = changes({}, [told(1, b"x", org_id="org_nobody")])
    assert (len(news.standing), news.entries) == (1, ())


async def test_what_is_stored_is_said_once_and_who_has_ended_is_forgotten(rig: Rig, postgres: Postgres) -> None:
    async with turns_of(postgres)() as turn:
        assert turn is not None
        assert await turn.known() == []
        assert [row.seq for row in await turn.store([told(1, b"a"), told(2, b"b")])] == [1, 2]
        assert await turn.store([told(1, b"a")]) == []
        await turn.store([told(1, b"c")])
        assert await turn.known() == [h.ulid("wrk", 1), h.ulid("wrk", 2)]
        await turn.store([told(1, b"d", ended=True)])
        assert await turn.known() == [h.ulid("wrk", 2)]
        assert await turn.store([told(1, b"d", ended=True)]) == []
    assert await said(rig) == [b"a", b"b", b"c", b"d"]


async def test_one_replica_has_the_turn_until_its_connection_is_gone(
    postgres: Postgres, projector_database: Database
) -> None:
    owner = await asyncpg.connect(projector_database.admin)

    async def lose_it() -> None:
        async with turns_of(postgres)() as turn:
            assert turn is not None
            await turn.store([told(1, b"a")])
            async with turns_of(another)() as second:
                assert second is None
            await owner.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            await turn.store([told(1, b"old")])

    async with Postgres(patient_settings(projector_database.projector), "projector") as another:
        with pytest.raises(Refusal, match="unavailable"):
            await lose_it()
        async with turns_of(another)() as second:
            assert second is not None
            assert await second.known() == [h.ulid("wrk", 1)]
    await owner.close()


class Script:
    """A runtime that says what the test puts; None ends the stream."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[Sequence[ToldWorker] | Exception | None] = asyncio.Queue()
        self.asked: list[list[str]] = []

    async def watch(self, known: Sequence[str]) -> AsyncIterator[Sequence[ToldWorker]]:
        self.asked.append(list(known))
        while (workers := await self.says.get()) is not None:
            if isinstance(workers, Exception):
                raise workers
            yield workers


@asynccontextmanager
async def following(rig: Rig, postgres: Postgres, source: Script) -> AsyncIterator[None]:
    task = asyncio.create_task(WorkersFollower(source, turns_of(postgres), rig.publication, QUICK).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_after_a_stream_that_ended_it_asks_for_what_it_knows(rig: Rig, postgres: Postgres) -> None:
    source = Script()
    async with following(rig, postgres, source):
        source.says.put_nowait([told(1, b"a")])
        source.says.put_nowait(None)
        await eventually(lambda: len(source.asked) == 2)
        assert source.asked == [[], [h.ulid("wrk", 1)]]
        source.says.put_nowait([told(1, b"z", ended=True)])
        async with asyncio.timeout(60):
            while await said(rig) != [b"a", b"z"]:
                await asyncio.sleep(0.01)


async def test_it_follows_again_after_a_defect(rig: Rig, postgres: Postgres) -> None:
    source = Script()
    async with following(rig, postgres, source):
        source.says.put_nowait(KeyError("a defect"))
        source.says.put_nowait([told(1, b"a")])
        async with asyncio.timeout(60):
            while await said(rig) != [b"a"]:
                await asyncio.sleep(0.01)


async def test_when_the_replica_that_follows_ends_the_other_one_goes_on(
    rig: Rig, postgres: Postgres, projector_database: Database
) -> None:
    async with Postgres(patient_settings(projector_database.projector), "projector") as another:
        first, second = Script(), Script()
        async with following(Rig(another), another, second):
            await eventually(lambda: second.asked == [[]])
            async with following(rig, postgres, first):
                second.says.put_nowait([told(1, b"a")])
                async with asyncio.timeout(60):
                    while not await said(rig):
                        await asyncio.sleep(0.01)
                assert first.asked == []
        async with following(rig, postgres, first):
            await eventually(lambda: first.asked == [[h.ulid("wrk", 1)]])


@dataclass
class Workers:
    """`oa_topics.tests.conformance.Source`: each event is a worker that stands otherwise."""

    rig: Rig
    postgres: Postgres
    stub: Any
    owner: str
    metadata: Any = field(default_factory=as_gateway)
    topics: tuple[str, str, str] = (OURS, f"org:{h.OTHER_ORG}:workers", f"org:{h.ulid('org', 3)}:workers")
    foreign: str = f"worker:{h.ulid('wrk', 1)}:lifecycle"
    commits: int = 0

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        org_id = topic.split(":")[1]
        workers = []
        for _ in range(count):
            self.commits += 1
            workers.append(told(self.commits, b"%d" % self.commits + b"x" * size, org_id))
        async with turns_of(self.postgres)() as turn:
            assert turn is not None
            self.rig.publication.publish(await turn.store(workers), self.rig.publication.past)

    async def lose(self, topic: str, seq: int) -> None:
        owner = await asyncpg.connect(self.owner)
        await owner.execute("DELETE FROM projection.journal WHERE topic = $1 AND seq = $2", topic, seq)
        await owner.close()


class TestTopics(TopicSourceSuite):
    of = ORG_WORKERS

    @pytest.fixture
    def source(self, rig: Rig, postgres: Postgres, doors: Doors, projector_database: Database) -> Source:
        return Workers(rig, postgres, doors.topics, projector_database.projector)
