"""The journal's past: what is missing is noticed, also after a restart, and a new epoch tells everybody."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.tasks.ending import cancel_and_wait
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import PATIENCE_S
from openagents.sync.v1 import topic_service_pb2 as pb
from services.projector.journal.domain import JournalRow, RowMark
from services.projector.journal.store import PostgresJournalWriter
from services.projector.lineage.domain import Followed, StoredRow, lacking
from services.projector.tests import histories as h
from services.projector.tests.doors import MINE, Doors, as_gateway, refused
from services.projector.tests.fake_log import PARTITIONS, FakeLog, serving, some_runs, spread
from services.projector.tests.lost_rows import LaggingStandby
from services.projector.tests.rig import Rig, check_everything_once, running, until
from services.projector.workers.domain import ToldWorker
from services.projector.workers.store import PostgresTurns

# ------------------------------------------------------------------------------------------------- decisions

Commit = list[str]
"""The topics of the rows that one commit appends."""
COMMITS = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4), min_size=1, max_size=12)


class Journal:
    """A model of the journal: `commit` appends rows."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], bytes] = {}
        self.heads = Counter[str]()

    def commit(self, topics: Commit, content: str) -> RowMark:
        """Append a row to each topic. Returns the mark of the last one."""
        for topic in topics:
            self.heads[topic] += 1
            self.rows[topic, self.heads[topic]] = hashlib.sha256(content.encode()).digest()
        last = topics[-1], self.heads[topics[-1]]
        return RowMark(*last, self.rows[last])

    def stored(self, marks: list[RowMark], floors: dict[str, int] | None = None) -> list[StoredRow]:
        """What there is where rows are expected, up to floors that were pruned."""
        floor = floors or {}
        return [
            StoredRow(
                mark.topic,
                mark.seq,
                floor.get(mark.topic, 0),
                None if mark.seq <= floor.get(mark.topic, 0) else self.rows.get((mark.topic, mark.seq)),
            )
            for mark in marks
        ]


@given(commits=COMMITS, lost=st.integers(0, 12), others=COMMITS)
def test_rows_that_are_gone_are_missed_whatever_was_written_in_their_place(
    commits: list[Commit], lost: int, others: list[Commit]
) -> None:
    """A loss takes the newest commits."""
    before, after = Journal(), Journal()
    marks = [before.commit(topics, f"mine {number}") for number, topics in enumerate(commits)]
    for number, topics in enumerate(commits[: max(0, len(commits) - lost)]):
        after.commit(topics, f"mine {number}")
    for number, topics in enumerate(others):
        after.commit(topics, f"other {number}")
    assert bool(lacking(Followed({}, marks), {}, after.stored(marks))) == bool(lost)


@given(commits=COMMITS, floors=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 50)))
def test_rows_that_were_pruned_are_not_missed(commits: list[Commit], floors: dict[str, int]) -> None:
    journal = Journal()
    marks = [journal.commit(topics, str(number)) for number, topics in enumerate(commits)]
    assert lacking(Followed({}, marks), {}, journal.stored(marks, floors)) == ()


@pytest.mark.parametrize(
    ("seen", "found", "expected"),
    [
        ({}, {}, ()),
        ({}, {"s/1/0": 5}, ()),
        ({"s/1/0": 5}, {"s/1/0": 5, "s/1/1": 1}, ()),
        ({"s/1/0": 5}, {"s/1/0": 6}, ()),
        ({"s/1/0": 5, "s/1/1": 3}, {"s/1/0": 4, "s/1/1": 3}, ("s/1/0",)),
        ({"s/1/0": 5}, {}, ("s/1/0",)),
    ],
)
def test_checkpoints_never_go_back(seen: dict[str, int], found: dict[str, int], expected: tuple[str, ...]) -> None:
    assert lacking(Followed(seen, ()), found, ()) == expected


async def test_rows_of_an_earlier_past_are_not_published(rig: Rig) -> None:
    """Their commit was acknowledged by a server that is gone, and the news of it came late."""
    past = rig.publication.past
    rig.publication.publish([JournalRow(MINE, 1, b"kept")], past)
    assert [(mark.topic, mark.seq) for mark in rig.publication.newest] == [(MINE, 1)]
    rig.publication.restart()
    rig.publication.publish([JournalRow(MINE, 2, b"late")], past)
    assert list(rig.publication.newest) == []


# ------------------------------------------------------------------------------------------------- replicas


async def epochs(database: Database) -> list[str]:
    connection = await asyncpg.connect(database.owner)
    try:
        rows = await connection.fetch("SELECT cause, epoch FROM projection.journal_epochs ORDER BY number")
        current = await connection.fetchval("SELECT epoch FROM projection.journal_epoch")
    finally:
        await connection.close()
    assert rows[-1]["epoch"] == current
    return [row["cause"] for row in rows]


@asynccontextmanager
async def watching(rig: Rig) -> AsyncIterator[None]:
    """The rig confirms every new connection, and looks from time to time."""
    rig.histories.on_connect(rig.lineage.confirm)
    task = asyncio.create_task(rig.lineage.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def test_rows_that_were_lost_give_the_journal_a_new_epoch_and_the_projection_goes_on(
    rig: Rig, doors: Doors, projector_database: Database
) -> None:
    """Others get their numbers, in the new epoch; who watches or resumes is told."""
    runs, topic = some_runs(12), f"user:{h.ulid('usr', 0)}:runs"
    log, before = FakeLog(spread(runs[:6])), rig.lineage.epoch
    watch: Any = doors.topics.WatchTopics(metadata=as_gateway())
    await watch.write(pb.WatchTopicsRequest(add_topics=[topic]))
    async with watching(rig), serving(log) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
        await rig.lineage.open()
        standby = await LaggingStandby.of(projector_database)
        for number, run in enumerate(runs[6:9], start=6):
            await log.append(number % PARTITIONS, run)
        total = sum(map(len, log.partitions.values()))
        await until(lambda: sum(rig.progress.applied.values()) == total)
        await standby.promote()
        await until(lambda: rig.lineage.epoch != before)
        for number, run in enumerate(runs[9:], start=9):
            await log.append(number % PARTITIONS, run)
        total = sum(map(len, log.partitions.values()))
        await until(lambda: rig.progress.connected and sum(rig.progress.applied.values()) == total)
        assert rig.progress.halted == ""
        await check_everything_once(rig, runs)
        assert await epochs(projector_database) == ["installed", "events_missing"]

        said: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while rig.lineage.epoch not in said:
                answer = await watch.read()
                said |= {one.epoch for one in answer.watched}
        assert said <= {before, rig.lineage.epoch}
        replay = pb.ReplayTopicRequest(topic=topic, epoch=before, after_seq=1)
        refusal = await refused(doors.topics.ReplayTopic(replay, metadata=as_gateway()))
        assert (refusal.reason, refusal.metadata["epoch"]) == ("epoch_mismatch", rig.lineage.epoch)
    watch.cancel()


async def test_a_row_about_a_worker_is_missed_too(rig: Rig, postgres: Postgres, projector_database: Database) -> None:
    """No checkpoint moves with it."""
    standby, before = await LaggingStandby.of(projector_database), rig.lineage.epoch
    async with PostgresTurns(postgres, PostgresJournalWriter)() as turn:
        assert turn is not None
        past = rig.publication.past
        rig.publication.publish(await turn.store([ToldWorker(h.ulid("wrk", 1), h.ORG, False, b"a")]), past)
    await rig.lineage.open()
    assert rig.lineage.epoch == before
    await standby.promote()
    await rig.look_again()
    assert rig.lineage.epoch != before
    assert await epochs(projector_database) == ["installed", "events_missing"]


async def test_a_loss_that_only_another_replica_has_seen_before_it_ended_is_missed(
    rig: Rig, projector_database: Database
) -> None:
    """This one has applied nothing, and only looked."""
    standby, before = await LaggingStandby.of(projector_database), rig.lineage.epoch
    async with Postgres(patient_settings(projector_database.projector), "projector") as another:
        await Rig(another).fill(2)
    await rig.lineage.open()
    await standby.promote()
    await rig.look_again()
    assert rig.lineage.epoch != before


ELSEWHERE = {
    "another server": "UPDATE projection.journal_epoch SET system_identifier = system_identifier + 1",
    "promoted": "UPDATE projection.journal_epoch SET timeline = timeline + 1",
    "restored from a dump": "UPDATE projection.journal_epoch SET table_oid = table_oid + 1",
}
"""Where the journal was last seen."""


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_where_nobody_can_compare_the_journal_gets_a_new_epoch(
    rig: Rig, postgres: Postgres, projector_database: Database, what: str
) -> None:
    """All projectors were started anew."""
    await rig.fill(2)
    before = rig.lineage.epoch
    await _elsewhere(projector_database, what)
    first, second = Rig(postgres), Rig(postgres)
    await first.lineage.open()
    await second.lineage.open()
    assert first.lineage.epoch == second.lineage.epoch != before, "the second one finds it"
    assert await epochs(projector_database) == ["installed", "history_unknown"]


async def test_a_server_of_another_history_that_has_everything_keeps_the_epoch(
    rig: Rig, postgres: Postgres, projector_database: Database
) -> None:
    """A standby that had everything was promoted: the replica can tell, and a later one needs not."""
    await rig.fill(2)
    await _elsewhere(projector_database, "promoted")
    await rig.lineage.open()
    again = Rig(postgres)
    await again.lineage.open()
    assert again.lineage.epoch == rig.lineage.epoch
    assert await epochs(projector_database) == ["installed"]


async def _elsewhere(database: Database, what: str) -> None:
    """The journal was last seen elsewhere."""
    admin = await asyncpg.connect(database.admin)
    try:
        await admin.execute(ELSEWHERE[what])
    finally:
        await admin.close()


async def test_a_role_that_may_not_ask_for_the_server_is_refused_with_what_to_grant(
    rig: Rig, projector_database: Database
) -> None:
    admin = await asyncpg.connect(projector_database.admin)
    try:
        await admin.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        with pytest.raises(Refusal, match=r"grant its role EXECUTE on pg_control_system\(\)"):
            await rig.lineage.open()
        await admin.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO projector_app")
        await rig.lineage.open()
    finally:
        await admin.close()
