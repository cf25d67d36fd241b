"""All mutations, by where they stand: sources, gateway, the gateway's session, the client's session."""

from __future__ import annotations

from oa_khala.client.connection import Connection as ClientConnection
from oa_khala.client.session import ClientSession
from oa_khala.client.tokens import Tokens as ClientTokens
from oa_khala.client.topics import ClientTopic
from oa_khala.cursors import plan_subscription
from oa_khala.feed import Feed
from oa_khala.server.commands import Position, Subscription
from oa_khala.server.subscriptions import Subscriptions
from oa_platform.auth.revocations import Revocations
from oa_topics.history import History, unbroken
from oa_topics.hub import TopicHub
from oa_topics.watcher import Watcher, _runs
from services.khala_gateway.admission.app import LiveTokens
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.connections.app.delivery import Delivery
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.repairs import Repairs
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.sources.door import GrpcTopicSource
from tests.mutations.mutation import Edit, Mutation

_FEED_TESTS = "libs/oa_khala/tests/test_feed.py"
_CURSOR_TESTS = "libs/oa_khala/tests/test_cursors.py"
_SERVER_TESTS = "libs/oa_khala/server/tests"
_CLIENT_TESTS = "libs/oa_khala/client/tests"
_SOURCE_TESTS = "libs/oa_topics"
_GATEWAY_ROOMS = "services/khala_gateway/feeds services/khala_gateway/sources"
_GATEWAY_TESTS = f"{_GATEWAY_ROOMS} services/khala_gateway/tests/test_delivery.py"
_HEARTBEAT_TESTS = "services/khala_gateway/tests/test_heartbeats.py"
_DOOR_TESTS = "services/khala_gateway/tests/test_door.py"
_MATRIX = "services/khala_gateway/tests/test_authorisation_matrix.py"
_REVOCATION_TESTS = "libs/oa_platform/tests/test_revocations.py services/khala_gateway/tests/test_revocation.py"

_SOURCES = (
    Mutation(
        "drop_unseen",
        "a stream drops frames that find no room, and says nothing of it",
        (Edit(Watcher.offer, "carried.missed = True\n        self._await(topic, carried)\n        return", "return"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "stand_with_the_dropped",
        "a topic stands although frames of it were dropped since it was looked at",
        (Edit(Watcher._answered, "None if topic in self._awaiting else carried", "carried"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "send_what_was_covered",
        "a stream sends frames that the head which it named covers",
        (Edit(_runs, "if seq <= carried.head:", "if False:"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "keep_frames_of_the_past",
        "a stream sends what waited when the log got another past",
        (Edit(Watcher.restart, "self._forget_frames(topic, carried)\n", "pass\n"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "describe_the_past",
        "a hub tells where topics stood before the log got another past",
        (Edit(TopicHub.describe, "if past == self._past else ()", ""),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "repair_with_the_past",
        "a hub hands out what it read before the log got another past",
        (Edit(TopicHub._repair, "if past != self._past:", "if False:"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "hand_out_past_a_hole",
        "a hub hands out events after a hole as if they were next",
        (Edit(TopicHub.publish, "events[0][0] == feed.sent + 1", "events[0][0] > feed.sent"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "fill_a_hole_past_a_loss",
        "a hub hands out what it has read after an event that is not there",
        (Edit(TopicHub._repair, "following = list(unbroken(fresh, sent))", "following = fresh"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "label_with_the_past",
        "a page is labelled with the lineage that was there before it was read",
        (Edit(History.replay, "if await self._store.epoch() != described.state.epoch:", "if False:"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "page_with_a_hole",
        "a page of history goes on behind an event that is not there",
        (Edit(unbroken, " if event[0] == expected", ""),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "snapshot_of_another_lineage",
        "a snapshot is labelled with the lineage that was there before it was read",
        (Edit(History.snapshot, "if await self._store.epoch() != epoch:", "if False:"),),
        _SOURCE_TESTS,
    ),
    Mutation(
        "content_unchecked",
        "a source takes a cursor for good whose chain is another",
        (Edit(History._check_content, "if chain != after_chain:", "if False:"),),
        _SOURCE_TESTS,
    ),
)
_GATEWAY = (
    Mutation(
        "skip_holes",
        "a feed takes whatever comes as the next",
        (
            Edit(
                Feed.offer, "if self.take(first_seq, entries):", "if self.take(min(first_seq, self.head + 1), entries):"
            ),
        ),
        _FEED_TESTS,
    ),
    Mutation(
        "park_one_too_high",
        "a feed parks what comes behind a hole under the next seq",
        (Edit(Feed._park, "enumerate(entries, first_seq)", "enumerate(entries, first_seq + 1)"),),
        _FEED_TESTS,
    ),
    Mutation(
        "last_hole_unseen",
        "a feed does not see that the newest event is missing",
        (Edit(Feed.hole, "if self.known_head <= self.head:", "if self.known_head <= self.head + 1:"),),
        _FEED_TESTS,
    ),
    Mutation(
        "epoch_unchecked",
        "a feed goes on across a change of lineage",
        (
            Edit(
                Feed.observe,
                "if state.epoch != self.epoch:",
                "self.epoch = state.epoch\n    if state.epoch != self.epoch:",
            ),
        ),
        _FEED_TESTS,
    ),
    Mutation(
        "live_epoch_unchecked",
        "the hub takes live frames of another lineage",
        (Edit(FeedHub.frames, "if held.feed.epoch != epoch:", "if False:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "lineage_ends_unsaid",
        "nobody is told that the lineage which they follow is over",
        (Edit(FeedHub.watched, 'held.end_lineage("epoch_mismatch", watched.state, spared=waiting)', "pass"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "never_repair",
        "the hub never reads what is missing",
        (Edit(Repairs.start, "if held.feed.hole is None or held in self._running:", "if True:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "repair_of_another_feed",
        "what was read for one lineage goes to the feed of the next",
        (Edit(Repairs._read_page, "if held.feed is not feed or page.epoch != feed.epoch:", "if False:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "ring_one_too_late",
        "the ring is served from one entry too far on",
        (Edit(TopicFeed.segment, "self.feed.slice(next_seq, ", "self.feed.slice(next_seq + 1, "),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "segments_of_the_past",
        "joined pieces of a lineage that is over are served",
        (Edit(TopicFeed._begin_at, "self._segments.clear()", "pass"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "one_form_for_all",
        "who speaks JSON is served what was joined for others",
        (Edit(TopicFeed.segment, "next_seq * ENCODINGS + encoding.number", "next_seq"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "trust_the_numbers",
        "the gateway takes a cursor for good whose numbers are",
        (
            Edit(
                Confirmations.confirm, "question = (str(topic), cursor)", "return\n    question = (str(topic), cursor)"
            ),
        ),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "join_an_old_read",
        "a subscriber takes a page whose reading began before it came",
        (Edit(ReplayReader.read, "read.began_at < registered_at", "False"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "kept_snapshot_of_another_lineage",
        "a snapshot that was kept is given for one of the lineage that there is now",
        (
            Edit(Snapshots.read, "kept.epoch == state.epoch and ", ""),
            Edit(TopicSubscriber.read_snapshot, "if found.epoch != state.epoch:", "if False:"),
        ),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "snapshot_beside_the_feed",
        "a snapshot of one lineage is followed by events of another",
        (Edit(TopicSubscriber.read_snapshot, "if found.epoch != state.epoch:", "if False:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "unblocked_unasked",
        "nobody goes on when a socket takes something again",
        (Edit(Delivery.blocked, "self._flusher.ask(self)", "pass"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "moved_while_reading",
        "live frames are served to who waits for a page of history",
        (Edit(TopicSubscriber.moved, "self.waits is _NOTHING", "True"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "moved_unserved",
        "live frames are served before SUBSCRIBED has been said",
        (Edit(TopicSubscriber.moved, "subscription.next_seq and ", ""),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "moved_while_blocked",
        "live frames are written to a socket that takes nothing",
        (Edit(Delivery.serve, "if self.is_blocked:", "if False:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "together_from_anywhere",
        "who stands elsewhere is given what others need next",
        (
            Edit(TopicFeed.gather, "subscriber.subscription.next_seq != self.feed.head + 1", "False"),
            Edit(Subscription.share, " or self.next_seq != position.next_seq", ""),
        ),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "together_before_caught_up",
        "who has not been told CAUGHT_UP is delivered to with those who have, and is never told",
        (Edit(Subscription.share, " or self.catch_up_to > -1", ""),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "together_though_full",
        "a socket that takes nothing is written to with the others",
        (Edit(Connection.blocked, "subscriber.blocked()", "pass"),),
        f"{_GATEWAY_TESTS} services/khala_gateway/tests/test_slow_readers.py",
    ),
    Mutation(
        "together_in_one_encoding",
        "all are written what was joined for the first of them",
        (
            Edit(TopicFeed.gather, "self._cohorts.get(encoding.number)", "self._cohorts.get(0)"),
            Edit(TopicFeed.gather, "self._cohorts[encoding.number] =", "self._cohorts[0] ="),
        ),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "together_but_not_to_the_head",
        "one write is all that those who are delivered to together get",
        (Edit(TopicFeed._deliver_together, "segment.first_seq + segment.frames > self.feed.head", "True"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "together_into_the_next_lineage",
        "those who were delivered to together go on in a lineage that they have not asked for",
        (Edit(TopicFeed._begin_at, "self._dissolve(cohort)", "pass"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "beats_of_the_past",
        "a heartbeat names the topics that were followed at the first one",
        (Edit(Heartbeats.changed, "self._put(one, group.turn.unsorted)", "pass"),),
        _HEARTBEAT_TESTS,
    ),
    Mutation(
        "beats_of_a_late_turn",
        "when the loop is late, only the newest turn has its heartbeats",
        (Edit(Heartbeats._wake, "max(done, self._done - len(self._turns)) + 1", "self._done"),),
        _HEARTBEAT_TESTS,
    ),
    Mutation(
        "beats_in_the_wrong_turn",
        "who comes while nothing is due is in the turn of the last heartbeat",
        (Edit(Heartbeats.start, "self._done = number", "pass"),),
        _HEARTBEAT_TESTS,
    ),
    Mutation(
        "forget_topics_at_reconnect",
        "a stream that comes back carries nothing of what was carried before",
        (Edit(GrpcTopicSource._watch, "self._to_add = dict(self._wanted)", "pass"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "requests_of_a_dead_stream",
        "the requests of a stream that broke are taken by it",
        (Edit(GrpcTopicSource._requests, "if stream is not self._stream:", "if False:"),),
        _GATEWAY_TESTS,
    ),
    Mutation(
        "replayed_token_stays",
        "two connections live by one token",
        (Edit(LiveTokens.claim, "previous.token_replayed()", "pass"),),
        _DOOR_TESTS,
    ),
    Mutation(
        "revocation_unwatched",
        "a connection does not hear that its session was revoked",
        (Edit(Connection._hold, "self._dependencies.revocations.watch(grant.holder, self._revoked)", "lambda: None"),),
        _REVOCATION_TESTS,
    ),
    Mutation(
        "revoked_before_it_watched",
        "what was revoked while a token was looked at stays open",
        (Edit(Revocations.watch, "self.check(holder)", "pass"),),
        _REVOCATION_TESTS,
    ),
    Mutation(
        "revocation_untold",
        "what is open by a token hears nothing of its revocation",
        (Edit(Revocations.take, "self._tell(revocation)", "pass"),),
        _REVOCATION_TESTS,
    ),
)
_SESSION = (
    Mutation(
        "join_at_the_head",
        "a subscription is anchored at the first live frame",
        (
            Edit(
                Subscriptions._deliver,
                "subscription.position.next_seq = from_seq + 1",
                "subscription.position.next_seq = subscription.catch_up_to + 1",
            ),
        ),
        _SERVER_TESTS,
    ),
    Mutation(
        "check_from_the_first_frame",
        "the check begins with whatever comes first, and one frame is lost",
        (
            Edit(Subscriptions._deliver, "next_seq = from_seq + 1", "next_seq = from_seq + 2"),
            Edit(Position.advance, "first_seq != self.next_seq or ", ""),
        ),
        _SERVER_TESTS,
    ),
    Mutation(
        "caught_up_at_once",
        "CAUGHT_UP is said with SUBSCRIBED",
        (Edit(Subscriptions._deliver, "if from_seq == subscription", "if from_seq <= subscription"),),
        _SERVER_TESTS,
    ),
    Mutation(
        "caught_up_one_early",
        "CAUGHT_UP is said one event too early",
        (
            Edit(
                Subscriptions.delivered,
                "subscription.catch_up_to < subscription.next_seq",
                "subscription.catch_up_to <= subscription.next_seq",
            ),
        ),
        _SERVER_TESTS,
    ),
    Mutation(
        "snapshot_seq_off_by_one",
        "a snapshot is said to be of the seq after its own",
        (
            Edit(Subscriptions.snapshot, "(subscription.name, seq, payload", "(subscription.name, seq + 1, payload"),
            Edit(Subscriptions.snapshot, "Plan.SNAPSHOT, seq, chain", "Plan.SNAPSHOT, seq + 1, chain"),
        ),
        _SERVER_TESTS,
    ),
    Mutation(
        "snapshot_of_the_feeds_head",
        "a snapshot is taken for one of the feed's head",
        (Edit(Subscriptions.snapshot, "    part_bytes = self", "    seq = state.head\n    part_bytes = self"),),
        _SERVER_TESTS,
    ),
    Mutation(
        "snapshots_for_all",
        "a client that takes no snapshots of runs gets one",
        (Edit(Subscriptions._serve, "as_asked(state, subscription.takes_snapshots)", "as_asked(state, True)"),),
        _SERVER_TESTS,
    ),
    Mutation(
        "deliver_between_parts",
        "events come before the snapshot that they follow is whole",
        (
            Edit(
                Subscriptions.snapshot_part, "return [part]", "return [part, *self._deliver(subscription, unsent.seq)]"
            ),
        ),
        _SERVER_TESTS,
    ),
    Mutation(
        "refresh_unchecked",
        "what a refreshed token no longer grants goes on",
        (Edit(Subscriptions.granted, 'admit(grant, subscription.name, field="")', "pass"),),
        _MATRIX,
    ),
    Mutation(
        "owner_unchecked",
        "whose a topic is does not matter",
        (Edit(Subscriptions.ready, "check_owner(self._grant, subscription.topic, *subscription.owners)", "pass"),),
        _MATRIX,
    ),
    Mutation(
        "chain_unconfirmed",
        "a cursor's chain is not asked about",
        (Edit(Subscriptions._serve, "_needs_source(cursor, start)", "isinstance(start, Stale)"),),
        _SERVER_TESTS,
    ),
    Mutation(
        "cursor_of_another_epoch",
        "a cursor of another lineage is continued",
        (Edit(plan_subscription, "in _STALE:", "in _STALE[1:]:"),),
        _CURSOR_TESTS,
    ),
    Mutation(
        "cursor_ahead",
        "a cursor above the head is continued",
        (Edit(plan_subscription, "in _STALE:", "in (*_STALE[:1], *_STALE[2:]):"),),
        _CURSOR_TESTS,
    ),
    Mutation(
        "cursor_below_the_floor",
        "a cursor below the floor is continued",
        (Edit(plan_subscription, "in _STALE:", "in (*_STALE[:2], *_STALE[3:]):"),),
        _CURSOR_TESTS,
    ),
    Mutation(
        "floor_off_by_one",
        "a cursor at the floor is refused",
        (
            Edit(
                plan_subscription,
                "if broken(cursor, state, replay_budget):",
                (
                    "if broken(cursor, state, replay_budget) or (reason == "
                    '"retention_floor_breach" and cursor.applied_seq == state.floor):'
                ),
            ),
        ),
        _CURSOR_TESTS,
    ),
)
_CLIENT = (
    Mutation(
        "step_over_holes",
        "a client takes any newer event, behind a gateway that loses one",
        (
            Edit(ClientTopic.event, "if frame.seq > self.cursor.applied_seq + 1:", "if False:"),
            Edit(Subscriptions._deliver, "next_seq = from_seq + 1", "next_seq = from_seq + 2"),
        ),
        _CLIENT_TESTS,
    ),
    Mutation(
        "part_for_the_whole",
        "a client takes a part of a snapshot for all of it",
        (Edit(ClientTopic.snapshot, "if frame.part < frame.parts:", "if False:"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "snapshot_without_chain",
        "a client's cursor behind a snapshot of a run is numbers alone",
        (Edit(ClientTopic.subscribed, "frame.chain if frame.from_seq", 'b"" if frame.from_seq'),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "apply_again",
        "a client applies what it has applied",
        (Edit(ClientTopic.event, "if frame.seq <= self.cursor.applied_seq:", "if False:"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "forget_the_last_at_a_cut",
        "a client forgets its last event when the connection is cut",
        (
            Edit(
                ClientTopic.cut,
                "self.behind_at = -1",
                (
                    "self.behind_at = -1\n    if self.cursor is not None and "
                    "self.cursor.applied_seq:\n        self.cursor = "
                    "type(self.cursor)(self.cursor.epoch, self.cursor.applied_seq - 1)"
                ),
            ),
        ),
        _CLIENT_TESTS,
    ),
    Mutation(
        "keep_a_stale_cursor",
        "a client keeps the cursor that was called stale",
        (
            Edit(
                ClientTopic.refused,
                "had_state, self.cursor = self.cursor is not None, None",
                "had_state = self.cursor is not None",
            ),
        ),
        _CLIENT_TESTS,
    ),
    Mutation(
        "continue_in_another_epoch",
        "a client goes on in another lineage than its cursor's",
        (Edit(ClientTopic.subscribed, "frame.epoch != self.cursor.epoch", "False"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "answer_to_another_subscribe",
        "a client takes the answer to an earlier Subscribe, with a later cursor, for one that it can go on from",
        (Edit(ClientTopic._answers_another, "or frame.from_seq > self.cursor.applied_seq", ""),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "narrower_token",
        "a client shows a token that ends a topic which it was not asked for",
        (Edit(ClientTokens.passed_over, "topic in opened or", "True or"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "tail_unmissed",
        "a client that is behind a heartbeat's head does nothing",
        (Edit(ClientTopic.head, "if self.behind_at == self.cursor.applied_seq:", "if False:"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "frames_of_an_old_connection",
        "a client takes frames of a connection that it has left",
        (Edit(ClientSession.frame, "generation != self.generation or ", ""),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "end_of_an_old_connection",
        "a client takes the end of a connection that it has left for that of the present one",
        (Edit(ClientSession.disconnected, "generation == self.generation and ", ""),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "token_thought_shown",
        "a client does not show its token to the next connection",
        (Edit(ClientTokens.cut, "self._shown = None", "pass"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "revoked_without_end",
        "a client asks for tokens without end after its session was revoked",
        (Edit(ClientConnection.ended, "(reason == _REVOKED and self.tokens.revoked_again())", "False"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "refused_without_end",
        "a client asks for tokens without end while no gateway takes them",
        (Edit(ClientTokens.refused_again, "self._refused_in_a_row += 1", "pass"),),
        _CLIENT_TESTS,
    ),
    Mutation(
        "taken_token_counts_as_refused",
        "a client gives up after so many tokens have ended, although gateways took tokens in between",
        (Edit(ClientTokens.welcomed, "self._refused_in_a_row = 0", "pass"),),
        _CLIENT_TESTS,
    ),
)

MUTATIONS = {one.name: one for one in (*_SOURCES, *_GATEWAY, *_SESSION, *_CLIENT)}
"""By name."""

QUICK = (
    "skip_holes",
    "join_at_the_head",
    "keep_a_stale_cursor",
    "ring_one_too_late",
    "snapshots_for_all",
    "forget_topics_at_reconnect",
)
"""Those that the ordinary suite plants: each is caught by one of the first seeds."""
