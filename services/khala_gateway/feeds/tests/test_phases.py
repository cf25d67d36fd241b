"""What subscribers are told while a feed is opening, current and outdated."""

import asyncio
from collections.abc import Callable, Iterable

import pytest

from oa_base.refusal import Refusal
from oa_khala.frames import Form, TopicState
from oa_khala.server.commands import Subscription
from oa_khala.topics import parse_topic
from oa_khala.wire import event_frame
from oa_testing.waiting import eventually
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.topic_feed import Phase, TopicFeed
from services.khala_gateway.feeds.domain import encoding_of
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import HistoryPage, TopicSnapshot, WatchedTopic

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
TOPIC = parse_topic(T)


class Source:
    """Notes what it is asked for, and refuses history with `refusal`, or gives `page` once `go_on` is set."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.removed: list[str] = []
        self.away = False
        self.refusal = Refusal("unavailable", "away")
        self.page: HistoryPage | None = None
        self.go_on = asyncio.Event()
        # Whether refusals wait for it, too; and how often history was asked for.
        self.holds = False
        self.asked = 0

    def add(self, topics: Iterable[str]) -> None:
        self.added += topics

    def remove(self, topics: Iterable[str]) -> None:
        self.removed += topics

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """Nobody asks for one here."""
        raise NotImplementedError

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        self.asked += 1
        if self.page is not None or self.holds:
            await self.go_on.wait()
        if self.page is None:
            raise self.refusal
        return self.page


class Subscriber:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.subscription = Subscription(TOPIC, T, None, confirmed=True)
        self.encoding = encoding_of(Form.PROTO)
        self.write: Callable[[bytes], None] = self.told.append

    def ready(self, feed: TopicFeed) -> None:
        self.told.append(feed.state)

    def moved(self) -> None:
        self.told.append("moved")

    def stale(self, reason: str, state: TopicState) -> None:
        self.told.append(reason)

    def refused(self, refusal: Refusal) -> None:
        self.told.append(refusal)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def hub(source: Source) -> FeedHub:
    return FeedHub(HubLimits(), {"runtime": source}, lambda: 0.0, Flusher(asyncio.get_running_loop(), 0.0))


def joined(hub: FeedHub) -> Subscriber:
    subscriber = Subscriber()
    hub.join(TOPIC, subscriber)
    return subscriber


def watched(hub: FeedHub, state: TopicState) -> None:
    hub.watched(WatchedTopic(T, state, "usr_a", ""))


async def test_while_a_feed_is_opening_nothing_is_known_of_it(hub: FeedHub, source: Source) -> None:
    async with hub:
        subscriber = joined(hub)
        feed = hub.feeds[T]
        assert (feed.phase, source.added, hub.standing(T)[0]) == (Phase.OPENING, [T], 0)
        hub.frames(T, "e", 4, [event_frame(T, 4, b"x")])
        hub.learned(TOPIC, TopicState("e", 0, 4))
        hub.outdated(TOPIC)
        assert (feed.phase, source.added, subscriber.told) == (Phase.OPENING, [T], [])
        watched(hub, TopicState("e", 0, 4))
        assert (feed.phase, subscriber.told) == (Phase.CURRENT, [TopicState("e", 0, 4)])


async def test_an_outdated_feed_goes_on_for_those_who_are_served_and_the_others_wait(
    hub: FeedHub, source: Source
) -> None:
    async with hub:
        first = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.outdated(TOPIC)
        hub.outdated(TOPIC)
        assert source.added == [T, T], "the source is asked once"
        second = joined(hub)
        hub.frames(T, "e", 5, [event_frame(T, 5, b"x")])
        await eventually(lambda: first.told == [TopicState("e", 0, 4), "moved"])
        assert TopicState("e", 0, 4) not in second.told
        watched(hub, TopicState("e", 3, 5))
        assert second.told[-1] == TopicState("e", 3, 5)
        assert first.told == [TopicState("e", 0, 4), "moved"]


async def test_what_passes_is_refused_only_to_those_who_wait(hub: FeedHub) -> None:
    async with hub:
        first = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.outdated(TOPIC)
        second = joined(hub)
        away = Refusal("unavailable", "away")
        hub.refused(T, away)
        assert (first.told[1:], second.told) == ([], [away])
        gone = Refusal("not_found", "no")
        hub.refused(T, gone)
        assert first.told[1:] == [gone]
        assert T not in hub.feeds


async def test_a_hole_that_can_not_be_filled_opens_the_feed_again(hub: FeedHub, source: Source) -> None:
    async with hub:
        subscriber = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        source.refusal = Refusal("retention_floor_breach", "pruned")
        hub.frames(T, "e", 9, [event_frame(T, 9, b"x")])
        await eventually(lambda: hub.feeds[T].phase is Phase.OPENING)
        assert subscriber.told[1:] == ["retention_floor_breach"]
        assert source.added == [T, T]
        watched(hub, TopicState("e", 8, 9))
        assert (hub.feeds[T].phase, hub.standing(T)[0]) == (Phase.CURRENT, 9)


async def test_another_lineage_spares_those_who_have_been_delivered_nothing(hub: FeedHub) -> None:
    async with hub:
        first = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.outdated(TOPIC)
        second = joined(hub)
        watched(hub, TopicState("e2", 0, 1))
        assert first.told[1:] == ["epoch_mismatch"]
        assert second.told == [TopicState("e2", 0, 1)]


async def test_a_live_frame_of_another_lineage_is_not_taken_and_has_the_source_asked_which_it_is(
    hub: FeedHub, source: Source
) -> None:
    async with hub:
        subscriber = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.frames(T, "e2", 5, [event_frame(T, 5, b"new")])
        assert (hub.standing(T)[0], subscriber.told) == (4, [TopicState("e", 0, 4)])
        assert source.added == [T, T]


async def test_what_was_read_for_one_lineage_does_not_go_to_the_feed_of_the_next(hub: FeedHub, source: Source) -> None:
    source.page = HistoryPage("e", 5, [event_frame(T, seq, b"old") for seq in range(5, 9)], 0, 9)
    async with hub:
        subscriber = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.frames(T, "e", 9, [event_frame(T, 9, b"old")])
        await asyncio.sleep(0)  # the page is being read
        watched(hub, TopicState("e2", 0, 4))
        source.go_on.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (hub.feeds[T].state, subscriber.told[1:]) == (TopicState("e2", 0, 4), ["epoch_mismatch"])


async def test_what_was_joined_of_one_lineage_is_not_written_in_the_next(hub: FeedHub) -> None:
    async with hub:
        joined(hub)
        watched(hub, TopicState("e", 0, 4))
        hub.frames(T, "e", 5, [event_frame(T, 5, b"old")])
        feed, encoding = hub.feeds[T], encoding_of(Form.PROTO)
        assert (old := feed.segment(5, encoding)) is not None
        assert b"old" in old.data
        watched(hub, TopicState("e2", 0, 5))
        assert feed.segment(5, encoding) is None, "it is below the ring, and has to be read"


@pytest.mark.parametrize("reason", ["epoch_mismatch", "not_found"])
async def test_what_history_says_of_a_topic_that_was_dropped_meanwhile_changes_nothing(
    hub: FeedHub, source: Source, reason: str
) -> None:
    async with hub:
        subscriber = joined(hub)
        watched(hub, TopicState("e", 0, 4))
        source.refusal, source.holds = Refusal(reason, "no"), True
        hub.frames(T, "e", 6, [event_frame(T, 6, b"x")])
        await eventually(lambda: source.asked == 1)
        hub.leave(TOPIC, subscriber)
        hub.refused(T, Refusal("not_found", "no"))
        assert (T in hub.feeds, source.removed) == (False, [T])
        later = joined(hub)
        source.added.clear()
        source.go_on.set()
        await eventually(lambda: not hub._repairs._running)
        assert source.added == [], "the feed that is gone asks for nothing"
        watched(hub, TopicState("e2", 0, 1))
        assert later.told == [TopicState("e2", 0, 1)]
