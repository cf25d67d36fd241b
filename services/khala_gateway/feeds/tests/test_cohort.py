"""Subscribers that are delivered to together get what each would have got alone."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala.feed import FeedLimits
from oa_khala.frames import Form, TopicState
from oa_khala.server.commands import DeliveryBroken, Position, Subscription
from oa_khala.server.subscriptions import Subscriptions
from oa_khala.topics import parse_topic
from services.khala_gateway.feeds.app.cohort import Cohort
from services.khala_gateway.feeds.app.entries import Entry, Segment, join
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.domain import encoding_of
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import TopicSource, WatchedTopic

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
TOPIC = parse_topic(T)
ENCODINGS = (encoding_of(Form.PROTO), encoding_of(Form.PROTO, 1))
LIMITS = HubLimits(feed=FeedLimits(ring_events=64), slice_frames=4)


class Reader:
    """A subscriber whose socket is full after `room` messages, and which takes what it gets by itself."""

    def __init__(self, feed: TopicFeed, number: int, next_seq: int) -> None:
        self.feed = feed
        self.encoding = ENCODINGS[number % 2]
        self.subscription = Subscription(TOPIC, T, None, confirmed=True, position=Position(next_seq))
        self.room = 1_000
        self.first_seq = next_seq
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data
        self.room -= 1
        if self.room == 0:
            self.feed.part(self)  # as `pause_writing` does, in the middle of a write

    def moved(self) -> None:
        while self.room and self.subscription.next_seq <= self.feed.head:
            segment = self.feed.segment(self.subscription.next_seq, self.encoding)
            assert segment is not None
            Subscriptions.delivered(self.subscription, segment.first_seq, segment.frames)
            self.write(segment.data)
        if self.room:
            self.feed.gather(self)

    def ready(self, feed: TopicFeed) -> None:
        """Never called here."""

    def stale(self, reason: str, state: TopicState) -> None:
        """Never called here."""

    def refused(self, refusal: Refusal) -> None:
        """Never called here."""


def frame(seq: int) -> bytes:
    """A frame that says which one it is."""
    return b"%04d" % seq


def expected(reader: Reader, last_seq: int) -> bytes:
    """The messages of all frames that the reader should have got up to `last_seq`."""
    entries = [Entry(frame(seq)) for seq in range(reader.first_seq, last_seq + 1)]
    return join(reader.first_seq, entries, reader.encoding).data


@pytest.fixture
async def feed() -> TopicFeed:
    """A feed whose topic is empty."""
    return _feed()


def _feed() -> TopicFeed:
    feed = TopicFeed(TOPIC, cast("TopicSource", None), LIMITS, Flusher(asyncio.get_running_loop(), 0.0))
    feed.stand(WatchedTopic(T, TopicState("e", 0, 0), "usr_a", ""))
    return feed


def take(feed: TopicFeed, count: int) -> None:
    """Have the feed take `count` frames and deliver them."""
    first = feed.head + 1
    if count > 0:
        feed.take(first, [frame(seq) for seq in range(first, first + count)])
    feed.pump()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("frames"), st.integers(1, 6)),
        st.tuples(st.just("come"), st.integers(0, 1)),
        st.tuples(st.just("fill"), st.integers(0, 9), st.integers(1, 2)),
        st.tuples(st.just("block"), st.integers(0, 9)),
        st.tuples(st.just("unblock"), st.integers(0, 9)),
        st.tuples(st.just("go"), st.integers(0, 9)),
    ),
    max_size=25,
)


@given(OPERATIONS)
def test_everybody_gets_every_frame_once_and_in_order(operations: list[tuple[str, int] | tuple[str, int, int]]) -> None:
    async def played() -> None:
        feed, here, gone = _feed(), list[Reader](), list[Reader]()
        for what, number, *more in operations:
            reader = here[number % len(here)] if here else None
            if what == "frames":
                take(feed, min(number, 60 - feed.head))
            elif what == "come":
                here.append(Reader(feed, number, feed.head + 1))
                feed.add(here[-1])
                here[-1].moved()
            elif reader is not None:
                if what == "fill":
                    reader.room = more[0] if reader.room else 0
                elif what == "block":
                    reader.room = 0
                    feed.part(reader)
                elif what == "unblock":
                    reader.room = 1_000
                    reader.moved()
                else:
                    feed.remove(reader)
                    here.remove(reader)
                    gone.append(reader)
            for one in here:
                assert one.data == expected(one, one.subscription.next_seq - 1)
                assert not one.room or one.subscription.next_seq == feed.head + 1
        left = [(one, one.data) for one in gone]
        take(feed, 1)
        for one in here:
            one.room = 1_000
            one.moved()
            assert one.data == expected(one, feed.head)
        assert left == [(one, one.data) for one in gone]

    asyncio.run(played())


async def test_those_at_the_head_are_written_to_without_being_asked(
    feed: TopicFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [Reader(feed, number, 1) for number in range(4)]
    for reader in readers:
        feed.add(reader)
    take(feed, 1)
    monkeypatch.setattr(Reader, "moved", lambda _: pytest.fail("asked"))
    take(feed, 3)
    assert [reader.data for reader in readers] == [expected(reader, 4) for reader in readers]


async def test_who_has_not_been_told_that_it_is_caught_up_is_delivered_to_alone(feed: TopicFeed) -> None:
    reader = Reader(feed, 0, 1)
    reader.subscription.catch_up_to = 5
    feed.add(reader)
    feed.gather(reader)
    position = reader.subscription.position
    reader.subscription.catch_up_to = -1
    feed.gather(reader)
    assert reader.subscription.position is not position


async def test_a_new_lineage_finds_nobody_together(feed: TopicFeed) -> None:
    readers = [Reader(feed, 0, 1) for _ in range(2)]
    for reader in readers:
        feed.add(reader)
        reader.moved()
    assert readers[0].subscription.position is readers[1].subscription.position
    feed.stand(WatchedTopic(T, TopicState("f", 0, 7), "usr_a", ""))
    assert readers[0].subscription.position is not readers[1].subscription.position
    assert [reader.subscription.next_seq for reader in readers] == [1, 1]


def test_what_is_not_next_is_not_written() -> None:
    cohort = Cohort[Reader](ENCODINGS[0], 3)
    with pytest.raises(DeliveryBroken):
        cohort.deliver(Segment(b"x", 1, 4), None)  # type: ignore[arg-type]
    assert cohort.position.next_seq == 3
