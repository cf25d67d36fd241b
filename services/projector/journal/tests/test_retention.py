"""What journals keep, and the snapshots that stand for what they don't."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_khala.cursors import Stale, plan_subscription
from oa_khala.frames import Cursor, Plan, TopicState
from oa_khala.topics import TOPIC_CLASSES, USER_NOTIFICATIONS, USER_RUNS, parse_topic
from oa_platform.tasks.ending import cancel_and_wait
from oa_testing.postgres import Database
from oa_topics.tests.conformance import describe, refused, replay
from openagents.projection.v1.run_summary_pb2 import RunSummary
from openagents.sync.v1.frame_pb2 import DocumentSet
from openagents.sync.v1.topic_service_pb2 import ReadSnapshotRequest, ReadSnapshotResponse
from services.projector.journal.app import Pruner
from services.projector.journal.domain import Looked, snapshot_of
from services.projector.journal.limits import DOCUMENT_OVERHEAD_BYTES, RETENTION, Retention, SnapshotLimits
from services.projector.tests import histories as h
from services.projector.tests.doors import MINE, OURS, Doors, as_gateway
from services.projector.tests.rig import Rig
from services.projector.tests.source import ProjectorSource

FOR_EVER_S = 10**9


async def snapshot(doors: Doors, topic: str) -> tuple[int, DocumentSet]:
    answer: ReadSnapshotResponse = await doors.topics.ReadSnapshot(
        ReadSnapshotRequest(topic=topic), metadata=as_gateway()
    )
    return answer.seq, DocumentSet.FromString(answer.payload)


async def test_a_snapshot_is_what_the_list_says_as_of_the_head(rig: Rig, doors: Doors) -> None:
    checkpoint = await rig.checkpoint()
    for events in (h.whole_run(1)[:3], h.whole_run(2), h.whole_run(1)[3:], h.whole_run(3, h.OTHER_USER)):
        checkpoint = await rig.apply(checkpoint, events)
    for topic, head, numbers in ((MINE, 3, [1, 2]), (OURS, 4, [1, 2, 3])):
        seq, found = await snapshot(doors, topic)
        told = [RunSummary.FromString(document) for document in found.documents]
        assert (seq, [one.run_id for one in told]) == (head, [h.ulid("run", number) for number in numbers])
        assert not found.older_left_out
        for one in told:
            stored = await rig.summaries.summary(one.run_id)
            assert stored is not None
            assert one.latest_seq == stored.latest_seq == len(h.whole_run(1))


async def test_who_tells_what_happened_has_no_snapshot(rig: Rig, doors: Doors) -> None:
    await rig.fill(1)
    request = ReadSnapshotRequest(topic=f"user:{h.USER}:notifications")
    assert (await refused(doors.topics.ReadSnapshot(request, metadata=as_gateway()))).reason == "not_found"


@pytest.mark.parametrize(
    ("limits", "documents", "left_out"),
    [
        (SnapshotLimits(), (b"a", b"b", b"c"), False),
        (SnapshotLimits(documents=2), (b"b", b"c"), True),
        (SnapshotLimits(bytes=2 * (1 + DOCUMENT_OVERHEAD_BYTES)), (b"b", b"c"), True),
        (SnapshotLimits(bytes=1), (), True),
    ],
)
def test_the_newest_find_room(limits: SnapshotLimits, documents: tuple[bytes, ...], left_out: bool) -> None:
    found = snapshot_of([b"c", b"b", b"a"], limits)
    assert (found.documents, found.older_left_out) == (documents, left_out)


def test_every_class_of_the_projector_has_a_retention_beyond_its_replay_budget() -> None:
    assert set(RETENTION) == {one for one in TOPIC_CLASSES if one.source == "projector"}
    assert all(keep.rows > topic_class.replay_budget for topic_class, keep in RETENTION.items())


async def test_more_rows_than_are_kept_go_and_the_floor_stays_where_they_went(
    rig: Rig, doors: Doors, projector_database: Database
) -> None:
    await rig.fill(10)
    source = ProjectorSource(rig, doors.topics, projector_database.projector, USER_RUNS)
    pruner = Pruner(rig.journal, {USER_RUNS: Retention(4, FOR_EVER_S)})
    for _ in range(2):
        await pruner.prune()
        stands = await describe(source, MINE)
        assert (stands.floor, stands.head, stands.snapshot_available) == (6, 10, True)
    assert len((await replay(source, MINE, 6)).page.frames) == 4
    assert (await refused(replay(source, MINE, 5))).reason == "retention_floor_breach"
    assert (await describe(source, OURS)).floor == 0, "another class"
    await Pruner(rig.journal, {USER_RUNS: Retention(100, FOR_EVER_S)}).prune()
    assert (await describe(source, MINE)).floor == 6, "what is gone stays gone"
    seq, found = await snapshot(doors, MINE)
    assert (seq, len(found.documents)) == (10, 10), "and nothing is missing of the list"


async def test_no_topic_waits_for_those_that_are_always_due(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.projector.journal.app.SWEEP_TOPICS", 2)
    monkeypatch.setattr("services.projector.journal.app.SWEEP_PAUSE_S", 0)
    asked, pruned = list[str](), list[str]()

    class Busy:
        """Each topic is due again as soon as it was pruned."""

        async def look(self, form: str, keep: Retention, limit: int, after: str) -> Looked:
            asked.append(after)
            topics = [topic for topic in "abcde" if topic > after][:limit]
            return Looked(topics, topics[-1] if len(topics) == limit else None)

        async def prune(self, topic: str, keep: Retention) -> int:
            pruned.append(topic)
            return 1

    await Pruner(Busy(), {USER_RUNS: Retention(4, FOR_EVER_S)}).prune()
    assert (asked, pruned) == (["", "b", "d"], list("abcde"))
    await rig.fill(10)
    keep = Retention(4, FOR_EVER_S)
    assert await rig.journal.look(USER_RUNS.form, keep, 2, "") == Looked([MINE], None)
    assert await rig.journal.look(USER_RUNS.form, keep, 1, "") == Looked([MINE], MINE), "there may be more"
    assert await rig.journal.look(USER_RUNS.form, keep, 1, MINE) == Looked([], None)
    kept = Retention(100, FOR_EVER_S)
    assert await rig.journal.look(USER_RUNS.form, kept, 1, "") == Looked([], MINE), "it counts what is not due, too"


async def test_very_many_topics_are_not_looked_at_in_one_go() -> None:
    class Endless:
        looks = 0

        async def look(self, form: str, keep: Retention, limit: int, after: str) -> Looked:
            self.looks += 1
            await asyncio.sleep(0)
            return Looked([], "z")

        async def prune(self, topic: str, keep: Retention) -> int:
            raise AssertionError("nothing is due")

    journal = Endless()
    sweep = asyncio.create_task(Pruner(journal, {USER_RUNS: Retention(4, FOR_EVER_S)}).prune())
    for _ in range(20):
        await asyncio.sleep(0)
    assert journal.looks == 1
    await cancel_and_wait(sweep)


@pytest.mark.parametrize("error", [Refusal("unavailable", "away"), RuntimeError("a defect")], ids=repr)
async def test_a_pruner_that_fails_goes_on(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.projector.journal.app.SWEEP_INTERVAL_S", 0)

    class Away:
        looks = 0

        async def look(self, form: str, keep: Retention, limit: int, after: str) -> Looked:
            Away.looks += 1
            if Away.looks == 3:
                raise KeyboardInterrupt
            raise error

        async def prune(self, topic: str, keep: Retention) -> int:
            raise AssertionError("nothing is due")

    with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
        await Pruner(Away(), {USER_RUNS: Retention(4, FOR_EVER_S)}).run()
    assert [line["event"] for line in logs] == ["journals_not_pruned"] * 2


async def test_rows_that_are_too_old_go_and_a_topic_that_is_pruned_whole_keeps_its_head(
    rig: Rig, doors: Doors, projector_database: Database
) -> None:
    await rig.fill(3)
    source = ProjectorSource(rig, doors.topics, projector_database.projector, USER_RUNS)
    owner = await asyncpg.connect(projector_database.admin)
    for last, floor in ((2, 2), (3, 3)):
        await owner.execute("UPDATE projection.journal SET recorded_at = now() - interval '2 h' WHERE seq <= $1", last)
        await Pruner(rig.journal, {USER_RUNS: Retention(100, 3600), USER_NOTIFICATIONS: Retention(100, 3600)}).prune()
        for topic in (MINE, f"user:{h.USER}:notifications"):
            stands = await describe(source, topic)
            assert (stands.floor, stands.head) == (floor, 3)
    await owner.close()
    await rig.apply(await rig.checkpoint(), h.whole_run(9))
    assert (await describe(source, MINE)).head == 4


def test_each_reason_of_a_stale_cursor_is_reached_at_the_defaults() -> None:
    kept = RETENTION[USER_RUNS].rows
    state = TopicState("e", 50, 50 + kept, snapshot_available=True)
    budget = parse_topic(MINE).topic_class.replay_budget
    cursors = [Cursor("x", 60), Cursor("e", 51 + kept), Cursor("e", 49), Cursor("e", state.head - budget - 1)]
    assert [plan_subscription(cursor, state, budget) for cursor in cursors] == [
        Stale("epoch_mismatch"),
        Stale("cursor_ahead_of_head"),
        Stale("retention_floor_breach"),
        Stale("replay_budget_exceeded"),
    ]
    fresh = plan_subscription(None, state, budget)
    assert not isinstance(fresh, Stale)
    assert fresh.plan is Plan.SNAPSHOT
