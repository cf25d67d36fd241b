"""What following a run shows: each update, and what it comes to."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
from oa_client.core.log import fold
from oa_client.core.store import Element
from oa_client.follow.items import Began, Broken, EventsArchived, Item, Mended, RunItems, Seen, StartedOver
from oa_client.follow.updates import Applied, CaughtUp, Connection, Refused, Restarted, Update
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_runlog.events import RunCreated, Unknown
from oa_runlog.proof.chain import chain_over
from oa_runlog.state.reducer import replay
from oa_runlog.tests.records import record, text
from oa_runlog.wire import decode_event, encode_event, run_to_wire
from openagents.runtime.v1 import event_pb2, run_pb2

RUN = record([text(b"one\n"), text(b"two\n")])
TOPIC = run_events(RUN.run_id)
LAST = len(RUN.events)


def seen(seq: int, *, live: bool) -> Seen:
    payload = RUN.events[seq - 1]
    return Seen(decode_event(payload), payload, live)


def applied(seq: int) -> Applied:
    return Applied(TOPIC, Cursor("epoch", seq), RUN.events[seq - 1])


def after(count: int) -> RunItems:
    """With the first `count` events stored."""
    items = RunItems(RUN.run_id)
    for seq, payload in enumerate(RUN.events[:count], start=1):
        assert items.stored(Element(seq, payload)) == seen(seq, live=False)
    return items


@pytest.mark.parametrize("count", range(LAST + 1))
def test_what_is_stored_and_what_comes_is_one_log(count: int) -> None:
    items = after(count)
    for seq in range(count + 1, LAST + 1):
        assert not items.log.finished
        assert items.update(applied(seq)) == [seen(seq, live=True)]
    assert (items.log, items.log.finished) == (after(LAST).log, True)


def test_an_event_whose_kind_only_a_later_release_knows_is_one_of_the_log() -> None:
    unknown_field = b"\xba\x3e\x01x"  # of number 999
    payload = encode_event(RUN.run_id, 3, 1, 1, unknown_field)
    items = after(2)
    (item,) = items.update(Applied(TOPIC, Cursor("epoch", 3), payload))
    assert isinstance(item, Seen)
    assert (item.event.seq, item.event.body, item.event.type) == (3, Unknown(), "unknown")
    assert items.log.chain_head == chain_over(RUN.run_id, [*RUN.events[:2], payload])
    with pytest.raises(Refusal, match="missing_payload"):
        decode_event(payload)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (event_pb2.EventBody(), "missing_payload"),
        (event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=99)), "invalid_enum"),  # type: ignore[arg-type]
    ],
    ids=["nothing", "an end that means something else"],
)
def test_an_event_that_says_nothing_or_can_not_be_understood_is_refused(body: event_pb2.EventBody, reason: str) -> None:
    payload = encode_event(RUN.run_id, 3, 1, 1, body.SerializeToString())
    with pytest.raises(Refusal, match=reason):
        after(2).update(Applied(TOPIC, Cursor("epoch", 3), payload))


def snapshot(seq: int) -> bytes:
    """The payload of the run's snapshot at `seq`."""
    state = replay(RUN.events[:seq])
    created = decode_event(RUN.events[0]).body
    assert state is not None
    assert isinstance(created, RunCreated)
    return run_pb2.RunSnapshot(run=run_to_wire(state, created.spec, TOPIC), steps=2).SerializeToString()


@pytest.mark.parametrize("begun_at", [0, 2, LAST])
def test_what_a_store_holds_is_the_log_wherever_it_begins(begun_at: int) -> None:
    held = [Element(begun_at, snapshot(begun_at), snapshot=True)] if begun_at else []
    held += [Element(seq, RUN.events[seq - 1]) for seq in range(begun_at + 1, LAST + 1)]
    log = fold(RUN.run_id, held)
    assert (log.count, log.last_seq, log.finished) == (LAST - begun_at, LAST, True)
    assert log.chain_head == chain_over(RUN.run_id, RUN.events)


def test_a_snapshot_stands_for_the_events_up_to_it_and_the_chain_goes_on() -> None:
    items = RunItems(RUN.run_id)
    (began,) = items.update(Applied(TOPIC, Cursor("epoch", 2), snapshot(2), snapshot=True))
    assert isinstance(began, Began)
    assert (began.live, began.at.run.latest_seq, began.at.steps) == (True, 2, 2)
    assert items.update(CaughtUp(TOPIC, 2)) == []
    for seq in range(3, LAST + 1):
        assert items.update(applied(seq)) == [seen(seq, live=True)]
    assert (items.log.count, items.log.first_seq, items.log.last_seq) == (LAST - 2, 3, LAST)
    assert (items.log.chain_head, items.log.finished) == (after(LAST).log.chain_head, True)


def test_a_snapshot_of_a_run_that_has_ended_is_all_and_one_of_another_run_is_refused() -> None:
    items = RunItems(RUN.run_id)
    began = items.stored(Element(LAST, snapshot(LAST), snapshot=True))
    assert isinstance(began, Began)
    assert not began.live
    assert (items.log.finished, items.log.last_seq) == (True, LAST)
    with pytest.raises(ValueError, match="none of"):
        RunItems("run_01JD0000000000000000000009").stored(Element(LAST, snapshot(LAST), snapshot=True))


@pytest.mark.parametrize(
    ("update", "told"),
    [
        (Connection(open=True), []),
        (Connection(open=False, message="gone"), [Broken("gone")]),
        (CaughtUp(TOPIC, 2), []),
        (CaughtUp(TOPIC, 1), []),
    ],
)
def test_what_else_happens_changes_nothing(update: Update, told: list[Item]) -> None:
    items = after(2)
    before = items.log
    assert (items.update(update), items.log) == (told, before)


@pytest.mark.parametrize("back", [CaughtUp(TOPIC, 2), applied(3)], ids=["caught up", "an event"])
def test_a_broken_connection_is_told_once_and_that_it_is_back_once(back: Update) -> None:
    items = after(2)
    lost, opened = Connection(open=False, message="gone"), Connection(open=True)
    first, *others = [items.update(each) for each in (lost, lost, opened, lost, opened)]
    assert (first, others) == ([Broken("gone")], [[]] * 4)
    assert items.update(back)[0] == Mended()
    assert items.update(CaughtUp(TOPIC, 2)) == []
    assert items.update(lost) == [Broken("gone")]


def test_what_is_sent_again_is_counted_anew() -> None:
    items = after(3)
    assert items.update(Restarted(TOPIC, "epoch_mismatch")) == [StartedOver("epoch_mismatch")]
    assert items.log == after(0).log
    assert items.update(applied(1)) == [seen(1, live=True)]
    assert items.log == after(1).log


@pytest.mark.parametrize("count", [0, 2])
def test_a_log_that_begins_after_what_was_seen_is_in_the_archive(count: int) -> None:
    with pytest.raises(EventsArchived) as caught:
        after(count).update(CaughtUp(TOPIC, count + 1))
    assert (caught.value.reason, caught.value.run_id) == ("retention_floor_breach", RUN.run_id)


def test_a_topic_that_can_not_be_had_raises_why() -> None:
    refusal = Refusal("forbidden_topic", "somebody else's")
    with pytest.raises(Refusal) as caught:
        after(2).update(Refused(TOPIC, refusal))
    assert caught.value is refusal


def test_a_store_with_a_hole_is_no_log() -> None:
    with pytest.raises(ValueError, match="can't follow"):
        after(1).stored(Element(3, RUN.events[2]))
