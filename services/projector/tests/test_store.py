"""The tables, on the real Postgres and in the real role: one batch is one transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from oa_runlog import events as e
from oa_runlog.partitions import partition_of
from oa_runlog.state import RunStatus
from oa_testing.postgres import Database
from services.projector.journal.domain import TopicPosition
from services.projector.projection.app import CheckpointMoved
from services.projector.projection.domain import LogRefused
from services.projector.summaries.app import SummaryQuery
from services.projector.tests import histories as h
from services.projector.tests.rig import CODEC, Rig


@pytest_asyncio.fixture
async def owner(projector_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the service's role, for what a test looks at or breaks."""
    connection = await asyncpg.connect(projector_database.projector)
    yield connection
    await connection.close()


async def test_a_batch_changes_summary_topics_and_checkpoint(rig: Rig) -> None:
    events = h.whole_run(1)
    await rig.apply(await rig.checkpoint(), events[:2])
    after = await rig.apply(await rig.checkpoint(), events[2:])
    assert after == await rig.checkpoint()
    assert after.position == len(events)
    summary = await rig.summaries.summary(h.ulid("run", 1))
    assert summary is not None
    assert (summary.status, summary.latest_seq) == (RunStatus.SUCCEEDED, len(events))
    for topic in (f"user:{h.USER}:runs", f"org:{h.ORG}:runs"):
        rows = await rig.journal.page(topic, 0, 100)
        assert [row.seq for row in rows] == [1, 2]
        assert [CODEC.decode(row.payload).status for row in rows] == [RunStatus.RUNNING, RunStatus.SUCCEEDED]
        assert await rig.journal.positions([topic]) == {topic: TopicPosition(0, 2)}


async def test_a_batch_that_somebody_else_applied_is_refused_and_changes_nothing(rig: Rig) -> None:
    stale = await rig.checkpoint()
    await rig.apply(stale, h.whole_run(1))
    with pytest.raises(CheckpointMoved):
        await rig.apply(stale, h.whole_run(2))
    assert await rig.summaries.summary(h.ulid("run", 2)) is None
    assert (await rig.journal.positions([f"user:{h.USER}:runs"]))[f"user:{h.USER}:runs"].head == 1


async def test_the_checkpoint_is_compared_as_a_whole(rig: Rig) -> None:
    ours = await rig.checkpoint()
    for other in (replace(ours, log_epoch="other"), replace(ours, version=2), replace(ours, projection="other")):
        with pytest.raises(CheckpointMoved):
            await rig.apply(other, h.whole_run(1))


async def test_two_that_race_for_a_batch_apply_it_once(rig: Rig) -> None:
    checkpoint = await rig.checkpoint()
    outcomes = await asyncio.gather(*(rig.apply(checkpoint, h.whole_run(1)) for _ in range(5)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Checkpoint"] + ["CheckpointMoved"] * 4
    assert len(await rig.journal.page(f"user:{h.USER}:runs", 0, 100)) == 1


async def test_a_refused_log_leaves_no_trace(rig: Rig) -> None:
    events = h.whole_run(1)
    with pytest.raises(LogRefused):
        await rig.apply(await rig.checkpoint(), [*events[:2], *events[3:]])
    assert (await rig.checkpoint()).position == 0
    assert await rig.summaries.summary(h.ulid("run", 1)) is None
    assert await rig.journal.positions([f"user:{h.USER}:runs"]) == {}


async def test_drift_is_recorded_once_and_the_stored_document_stays(rig: Rig, owner: asyncpg.Connection) -> None:
    events = h.whole_run(1)
    await rig.apply(await rig.checkpoint(), events)
    stored = await rig.summaries.summary(h.ulid("run", 1))
    assert stored is not None
    forged = CODEC.encode(replace(stored, title="forged"))
    await owner.execute("UPDATE run_summaries SET document = $1, summary_hash = sha256($1)", forged)
    for _ in range(2):  # the log is read again from its start, twice
        await owner.execute("UPDATE checkpoints SET position = 0")
        assert (await rig.applied(await rig.checkpoint(), events)).drifts == 1
    drift = await owner.fetchrow("SELECT count(*) OVER () AS found, * FROM drifts")
    assert drift is not None
    assert (drift["found"], drift["run_id"], drift["seq"]) == (1, h.ulid("run", 1), len(events))
    assert CODEC.decode(drift["computed_document"]) == stored
    assert await rig.summaries.summary(h.ulid("run", 1)) == replace(stored, title="forged")
    assert len(await rig.journal.page(f"user:{h.USER}:runs", 0, 100)) == 1


async def test_seqs_have_no_gap_when_partitions_are_applied_at_once(rig: Rig, owner: asyncpg.Connection) -> None:
    """Eight partitions, four owners, batches cut by chance, every other transaction rolled back once."""
    chance = random.Random(20_261_122)
    owners = [(h.ulid("usr", n), h.ulid("org", n % 2)) for n in range(4)]
    runs = [h.whole_run(number, *owners[number % 4], deltas=4) for number in range(60)]
    partitions: dict[int, list[e.RunEvent]] = {n: [] for n in range(8)}
    for run in runs:
        partitions[partition_of(run[0].run_id, 8)].extend(run)
    rolled_back = 0

    async def work(partition: int) -> None:
        nonlocal rolled_back
        rest, checkpoint = partitions[partition], await rig.checkpoint(partition)
        while rest:
            size = chance.randint(1, 9)
            if chance.random() < 0.5:
                broken = rest[0]._replace(seq=99)
                with pytest.raises(LogRefused):
                    await rig.apply(checkpoint, [*rest[:size], broken])
                rolled_back += 1
            checkpoint = await rig.apply(checkpoint, rest[:size])
            rest = rest[size:]

    await asyncio.gather(*(work(partition) for partition in partitions))
    assert rolled_back > 10
    heads = await owner.fetch("SELECT topic, head FROM topic_heads")
    assert len(heads) == 6 + 4, "of runs, and of what people are told"
    for row in heads:
        seqs = [journal.seq for journal in await rig.journal.page(row["topic"], 0, 10_000)]
        assert seqs == list(range(1, row["head"] + 1))
    for run in runs:
        summary = await rig.summaries.summary(run[0].run_id)
        assert summary is not None
        assert summary.latest_seq == len(run)


async def test_pages_of_summaries_newest_first(rig: Rig) -> None:
    events = [event for number in range(7) for event in h.whole_run(number)]
    events += h.history(8, [h.created()])
    events += h.whole_run(9, user_id=h.OTHER_USER)
    events += h.whole_run(10, org_id=h.OTHER_ORG)
    await rig.apply(await rig.checkpoint(), events)
    mine = SummaryQuery(h.ORG, h.USER, None, "", "", 3)

    async def ids(query: SummaryQuery) -> list[str]:
        return [summary.run_id for summary in await rig.summaries.page(query)]

    assert await ids(mine) == [h.ulid("run", n) for n in (8, 6, 5)]
    assert await ids(replace(mine, before=h.ulid("run", 5))) == [h.ulid("run", n) for n in (4, 3, 2)]
    assert await ids(replace(mine, status=RunStatus.CREATED)) == [h.ulid("run", 8)]
    assert await ids(replace(mine, user_id=None)) == [h.ulid("run", n) for n in (9, 8, 6)]
    assert await ids(SummaryQuery(h.OTHER_ORG, None, None, "", "", 3)) == [h.ulid("run", 10)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE projection.journal SET payload = 'x'",
        "UPDATE projection.journal_epoch SET epoch = 'x'",
        "DELETE FROM projection.journal_epoch",
        "INSERT INTO projection.journal_epochs (epoch, cause, given_by, detail) VALUES ('x', 'ordered', 'x', '')",
        "DELETE FROM projection.journal_epochs",
        "UPDATE projection.drifts SET seq = 1",
        "DELETE FROM projection.drifts",
        "DELETE FROM projection.topic_heads",
        "DELETE FROM projection.checkpoints",
        "TRUNCATE projection.journal",
        "CREATE TABLE projection.other (x int)",
    ],
)
async def test_what_is_written_once_stays_whatever_the_service_tries(owner: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute(statement)
