"""What people are told of their runs, and the topic that tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oa_khala.topics import USER_NOTIFICATIONS
from oa_runlog import events as e
from oa_testing.postgres import Database
from oa_topics.tests.conformance import Source, TopicSourceSuite
from openagents.projection.v1.notification_pb2 import Notification
from services.projector.tests import histories as h
from services.projector.tests.doors import Doors
from services.projector.tests.rig import Rig
from services.projector.tests.source import ProjectorSource

MINE, THEIRS = f"user:{h.USER}:notifications", f"user:{h.OTHER_USER}:notifications"
ASKED = e.RequestOpened("r1", e.RequestKind.APPROVAL, "Order?")
ANSWERED = e.RequestAnswered("r1", "yes", "", h.OTHER_USER)
EXPIRED = e.RequestExpired("r1", "")


async def told(rig: Rig, topic: str = MINE) -> list[Notification]:
    """What the topic tells, from its start."""
    rows = await rig.journal.page(topic, 0, 100)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    return [Notification.FromString(row.payload) for row in rows]


def run(number: int, *bodies: e.EventBody, user_id: str = h.USER) -> list[e.RunEvent]:
    return h.history(number, [h.created(user_id, spec=replace(h.SPEC, title="ship it")), h.started(), *bodies])


async def test_a_person_is_told_what_waits_for_them_and_how_it_ended(rig: Rig) -> None:
    work: list[e.EventBody] = [
        h.text(b"x"),
        ASKED,
        h.text(b"y"),
        ANSWERED,
        replace(h.SUCCEEDED, result_json='{"large": true}'),
    ]
    await rig.apply(await rig.checkpoint(), run(1, *work))
    asked, settled, finished = await told(rig)
    assert [one.WhichOneof("about") for one in (asked, settled, finished)] == [
        "request_opened",
        "request_settled",
        "run_finished",
    ]
    assert {(one.run_id, one.title) for one in (asked, settled, finished)} == {(h.ulid("run", 1), "ship it")}
    assert [one.run_seq for one in (asked, settled, finished)] == [4, 6, 7]
    assert (asked.request_opened.request_id, asked.request_opened.title) == ("r1", "Order?")
    assert settled.request_settled.answered_by == h.OTHER_USER
    assert finished.run_finished.result_json == ""
    assert finished.time.ToNanoseconds() == h.START_NS + 1_007
    assert await told(rig, THEIRS) == [], "who answers somebody else's run is told nothing of it"


async def test_a_request_whose_time_is_over_was_answered_by_nobody(rig: Rig) -> None:
    await rig.apply(await rig.checkpoint(), run(1, ASKED, EXPIRED))
    assert [one.request_settled.answered_by for one in await told(rig)][1:] == [""]


async def test_each_event_is_told_once_however_the_log_comes_in_batches_and_again(rig: Rig) -> None:
    events = run(1, ASKED, ANSWERED, h.SUCCEEDED)
    checkpoint = await rig.checkpoint()
    for event in events:
        checkpoint = await rig.apply(checkpoint, [event])
    await rig.apply(checkpoint, events)  # the same run again, as a log that was restored may bring it
    assert [one.run_seq for one in await told(rig)] == [3, 4, 5]


async def test_what_a_service_account_started_is_told_to_nobody(rig: Rig) -> None:
    await rig.apply(await rig.checkpoint(), run(1, ASKED, user_id=h.ulid("sva", 1)))
    assert await told(rig, f"user:{h.ulid('usr', 1)}:notifications") == []


class TestTopics(TopicSourceSuite):
    of = USER_NOTIFICATIONS

    @pytest.fixture
    def source(self, rig: Rig, doors: Doors, projector_database: Database) -> Source:
        return ProjectorSource(rig, doors.topics, projector_database.projector, USER_NOTIFICATIONS)
