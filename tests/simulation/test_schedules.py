"""Schedules of Khala in the ordinary suite, and the proof that they would notice."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from oa_khala.client.topics import ClientTopic, Next
from oa_khala.cursors import as_asked
from oa_khala.feed import Feed
from oa_khala.frames import Event, Subscribed, TopicState
from oa_khala.server import subscriptions
from oa_khala.server.commands import Command, Subscription
from oa_khala.server.subscriptions import Subscriptions
from oa_khala.topics import Topic
from oa_topics.store import TopicDescription
from oa_topics.watcher import Watcher
from services.khala_gateway.connections.app.delivery import Delivery
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.repairs import Repairs
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.sources.app import TopicSnapshot
from tests.simulation.schedule import Outcome, SimulationFailure, run_schedule
from tests.simulation.source import SimTopics

SCHEDULES = 200
PART = 50
# A mutation that this many schedules don't notice would go unnoticed.
BITES_WITHIN = 400


def run_schedules(first: int, count: int) -> list[Outcome]:
    return [run_schedule(seed) for seed in range(first, first + count)]


@pytest.mark.parametrize("first", range(0, SCHEDULES, PART))
def test_schedules_hold(first: int) -> None:
    run_schedules(first, PART)


def test_a_seed_decides_everything() -> None:
    assert run_schedule(7) == run_schedule(7)


def test_the_schedules_reach_what_they_are_for() -> None:
    missing = {
        "connection_closing draining",
        "connection_closing slow_consumer",
        "connection_closing token_replayed",
        "connection_closing reauth_required",
        "lineage_ended epoch_mismatch",
        "replay_postponed unavailable",
        "frames_dropped",
        "resync",
        "snapshot",
        "run_snapshot",
    }
    for seed in range(SCHEDULES):
        outcome = run_schedule(seed)
        assert outcome.applied + outcome.snapshots > 0
        missing -= outcome.seen | ({"resync"} if outcome.resyncs else set())
        missing -= {"snapshot"} if outcome.snapshots else set()
        missing -= {"run_snapshot"} if outcome.run_snapshots else set()
        if not missing:
            break
    assert missing == set()


def skip_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that takes whatever comes as the next."""
    whole = Feed.offer

    def offer(self: Feed[object], first_seq: int, entries: list[object]) -> bool:
        return whole(self, min(first_seq, self.head + 1), entries)

    monkeypatch.setattr(Feed, "offer", offer)


def apply_beyond_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes any newer event, behind a gateway that subscribes one too far."""
    whole = ClientTopic.event

    def event(self: ClientTopic, frame: Event) -> object:
        if self.cursor is not None and frame.seq > self.cursor.applied_seq + 1:
            self.cursor = type(self.cursor)(self.cursor.epoch, frame.seq - 1)
        return whole(self, frame)

    monkeypatch.setattr(ClientTopic, "event", event)
    lose_a_frame(monkeypatch)


def lose_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose check begins with the frame that happens to come first."""

    def delivered(self: Subscriptions, subscription: Subscription, first_seq: int, count: int) -> list[object]:
        subscription.next_seq = first_seq + count
        return []

    whole = Delivery.begin

    def begin(self: Delivery, subscriber: TopicSubscriber) -> None:
        subscriber.subscription.next_seq += 1
        whole(self, subscriber)

    monkeypatch.setattr(Subscriptions, "delivered", delivered)
    monkeypatch.setattr(Delivery, "begin", begin)


def forget_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that never reads what is missing."""
    monkeypatch.setattr(Repairs, "start", lambda self, held: None)


def keep_the_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that goes on across a change of epoch."""
    whole = Feed.observe

    def observe(self: Feed[object], state: TopicState) -> bool:
        self.epoch = state.epoch
        return whole(self, state)

    monkeypatch.setattr(Feed, "observe", observe)


def ignore_stale_cursors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does nothing about an error of a topic."""
    monkeypatch.setattr(ClientTopic, "refused", lambda self, frame: ([], Next.NOTHING))


def apply_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that forgets what it has applied when the connection is cut."""
    whole = ClientTopic.cut

    def cut(self: ClientTopic) -> None:
        whole(self)
        if self.cursor is not None and self.cursor.applied_seq > 0:
            self.cursor = type(self.cursor)(self.cursor.epoch, self.cursor.applied_seq - 1)

    monkeypatch.setattr(ClientTopic, "cut", cut)


def trust_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that takes a cursor for good whose numbers are."""

    async def confirm(self: Confirmations, topic: object, cursor: object) -> None:
        return

    monkeypatch.setattr(Confirmations, "confirm", confirm)


def forget_what_found_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that drops frames and says nothing of it. No audit and no last event may be needed to notice."""
    whole = Watcher.offer

    def offer(self: Watcher, topic: str, first_seq: int, frames: Sequence[bytes]) -> None:
        if self._pending_bytes + sum(map(len, frames)) <= self._limit_bytes:
            whole(self, topic, first_seq, frames)

    monkeypatch.setattr(Watcher, "offer", offer)


def label_with_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that doesn't look whether the log has another past by the time that it has read a page."""

    async def epoch(self: SimTopics) -> str:
        return described[self]

    async def describe(self: SimTopics, topics: Collection[Topic]) -> Mapping[Topic, TopicDescription]:
        found = await whole(self, topics)
        for one in found.values():
            described[self] = one.state.epoch
        return found

    described: dict[SimTopics, str] = {}
    whole = SimTopics.describe
    monkeypatch.setattr(SimTopics, "describe", describe)
    monkeypatch.setattr(SimTopics, "epoch", epoch)


def begin_where_the_feed_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that takes a snapshot for one of the feed's head."""
    whole = Subscriptions.snapshot

    def snapshot(
        self: Subscriptions, subscription: Subscription, state: TopicState, seq: int, payload: bytes, chain: bytes
    ) -> list[Command]:
        return whole(self, subscription, state, state.head, payload, chain)

    monkeypatch.setattr(Subscriptions, "snapshot", snapshot)


def send_snapshots_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that doesn't ask whether a client takes the snapshot of a run."""
    monkeypatch.setattr(subscriptions, "as_asked", lambda state, takes: as_asked(state, True))


def deliver_between_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that begins to deliver with the first part."""
    whole = Subscriptions.snapshot

    def snapshot(
        self: Subscriptions, subscription: Subscription, state: TopicState, seq: int, payload: bytes, chain: bytes
    ) -> list[Command]:
        out = whole(self, subscription, state, seq, payload, chain)
        return [*out, *self._deliver(subscription, seq)] if subscription.unsent else out

    monkeypatch.setattr(Subscriptions, "snapshot", snapshot)


def forget_the_chain_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose cursor after a snapshot of a run is numbers only."""
    whole = ClientTopic.subscribed

    def subscribed(self: ClientTopic, frame: Subscribed) -> object:
        return whole(self, replace(frame, chain=b""))

    monkeypatch.setattr(ClientTopic, "subscribed", subscribed)


def apply_a_part_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes a part for the whole."""
    whole = ClientTopic.snapshot
    monkeypatch.setattr(ClientTopic, "snapshot", lambda self, frame: whole(self, replace(frame, part=0, parts=0)))


def keep_snapshots_for_other_lineages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that labels a kept snapshot with whatever lineage there is now."""
    whole = Snapshots.read

    async def read(self: Snapshots, topic: Topic, state: TopicState, in_parts: bool) -> TopicSnapshot:
        found = kept.setdefault((self, topic), await whole(self, topic, state, in_parts))
        return replace(found, epoch=state.epoch)

    kept: dict[tuple[Snapshots, Topic], TopicSnapshot] = {}
    monkeypatch.setattr(Snapshots, "read", read)


MUTATIONS = [
    send_snapshots_to_all,
    deliver_between_parts,
    forget_the_chain_of_a_snapshot,
    apply_a_part_of_a_snapshot,
    keep_snapshots_for_other_lineages,
    begin_where_the_feed_stands,
    forget_what_found_no_room,
    label_with_the_past,
    trust_the_numbers,
    skip_holes,
    apply_beyond_holes,
    lose_a_frame,
    forget_to_repair,
    keep_the_lineage,
    ignore_stale_cursors,
    apply_twice,
]


# One schedule in 400 notices: most frames that are dropped are made up for by a later one.
BITES_FROM: dict[Callable[[pytest.MonkeyPatch], None], int] = {forget_what_found_no_room: 600}


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_the_simulation_bites(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(SimulationFailure, match="--seeds 1"):
        run_schedules(BITES_FROM.get(mutate, 0), BITES_WITHIN)
