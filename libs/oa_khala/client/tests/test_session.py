"""The client session, command by command."""

from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_khala import frames
from oa_khala.client.commands import (
    Apply,
    Chains,
    ClientLimits,
    Command,
    Connect,
    Disconnect,
    Instant,
    Live,
    NeedToken,
    Resync,
    Send,
    SessionFailed,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.session import ClientSession
from oa_khala.client.states import State
from oa_khala.frames import Cursor, Plan, TopicState

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
TTL_MS = 300_000
C = TypeVar("C", bound=Command)


class Driver:
    """A session with a clock; `out` holds the commands of the last call, `applied` all that were ever applied."""

    def __init__(
        self, *topics: str, cursor: Cursor | None = None, chains: Chains | None = None, grants: tuple[str, ...] = ()
    ) -> None:
        self.session = ClientSession("dev_1", "test/1", chains=chains, grants=grants)
        self.now_ms = 0
        self.applied: list[Apply] = []
        self.out: list[Command] = []
        for topic in topics:
            self.do("subscribe", topic, cursor)

    def do(self, name: str, *arguments: object) -> list[Command]:
        timed = name not in ("stop", "suspended", "unsubscribe")
        self.out = getattr(self.session, name)(*arguments, *([Instant(self.now_ms, 0.5)] if timed else []))
        self.applied += self.only(Apply)
        return self.out

    def frame(self, frame: frames.ServerFrame) -> list[Command]:
        return self.do("frame", self.session.generation, frame)

    def cut(self) -> int:
        """Ends the connection; how long the session then waits, in ms."""
        self.do("disconnected", self.session.generation)
        return self.only(Connect)[0].delay_ms

    def sent(self) -> list[frames.ClientFrame]:
        return [command.frame for command in self.only(Send)]

    def only(self, kind: type[C]) -> list[C]:
        return [command for command in self.out if isinstance(command, kind)]

    def token(self, *topics: str, text: str = "token", refused: tuple[tuple[str, str], ...] = ()) -> list[Command]:
        return self.do("token", SyncToken(text, frozenset(topics), TTL_MS, refused))

    def welcome(self) -> list[Command]:
        return self.frame(frames.Welcome("con_1", 15_000, 60_000, 128, 65_536, 1_000, 1_000 + TTL_MS))

    def open(self, *topics: str) -> "Driver":
        self.do("start")
        self.token(*topics)
        self.do("connected", self.session.generation)
        self.welcome()
        return self

    def following(self, from_seq: int = 0, epoch: str = "e1") -> "Driver":
        self.frame(frames.Subscribed(T, epoch, 0, from_seq, Plan.REPLAY, from_seq))
        return self

    def events(self, *seqs: int) -> list[int]:
        for seq in seqs:
            self.frame(frames.Event(T, seq, b"%d" % seq))
        return [command.cursor.applied_seq for command in self.applied]


def test_the_way_up() -> None:
    driver = Driver(T)
    assert driver.do("start") == [NeedToken(frozenset({T}))]
    assert driver.token(T) == [Connect(1, 0)]
    assert driver.do("connected", 1) == [Send(1, frames.Hello("token", "dev_1", "test/1"))]
    assert driver.welcome() == [Send(1, frames.Subscribe(((T, None),)))]
    assert driver.frame(frames.Subscribed(T, "e1", 0, 2, Plan.REPLAY, 0)) == []
    assert driver.frame(frames.Event(T, 1, b"a")) == [Apply(T, Cursor("e1", 1), b"a", 1)]
    assert driver.frame(frames.Event(T, 2, b"b")) == [Apply(T, Cursor("e1", 2), b"b", 1)]
    assert driver.frame(frames.CaughtUp(T, 2)) == [Live(T, 2)]
    assert driver.session.cursor(T) == Cursor("e1", 2)


def test_repetitions_are_dropped_and_a_hole_is_subscribed_again_from_the_applied_seq() -> None:
    driver = Driver(T).open(T).following()
    assert driver.events(1, 2, 1, 2, 3) == [1, 2, 3]
    assert driver.events(5) == [1, 2, 3]
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 3)),))]
    assert driver.events(6, 4) == [1, 2, 3], "nothing counts before SUBSCRIBED"
    driver.following(from_seq=3)
    assert driver.events(4, 5, 6) == [1, 2, 3, 4, 5, 6]


def test_caught_up_beyond_what_was_applied_is_a_hole() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    assert driver.frame(frames.CaughtUp(T, 2)) == [
        Send(driver.session.generation, frames.Subscribe(((T, Cursor("e1", 1)),)))
    ]


def test_a_persisted_cursor_is_resumed_after_a_restart() -> None:
    driver = Driver(T, cursor=Cursor("e1", 7)).open(T)
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 7)),))]
    driver.following(from_seq=7)
    assert driver.events(7, 8) == [8]


class Concatenated:
    """Chain values that show what they are made of; the summary topic has none."""

    def start(self, topic: str) -> bytes:
        return b"0" if topic == T else b""

    def after(self, chain: bytes, payload: bytes) -> bytes:
        return chain + payload


def test_a_cursor_is_bound_to_what_was_applied() -> None:
    driver = Driver(T, chains=Concatenated()).open(T).following()
    driver.events(1, 2)
    assert [(apply.follows, apply.cursor.chain) for apply in driver.applied] == [(b"0", b"01"), (b"01", b"012")]
    driver.events(4)
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 2, b"012")),))]


@pytest.mark.parametrize(
    ("topic", "cursor", "from_seq"),
    [(U, None, 0), (T, None, 4), (T, Cursor("e1", 4), 4)],
    ids=["no chain", "from a floor", "a cursor of old"],
)
def test_where_the_chain_is_not_known_it_stays_empty(topic: str, cursor: Cursor | None, from_seq: int) -> None:
    driver = Driver(topic, cursor=cursor, chains=Concatenated()).open(topic)
    driver.frame(frames.Subscribed(topic, "e1", 0, from_seq, Plan.REPLAY, from_seq))
    driver.frame(frames.Event(topic, from_seq + 1, b"x"))
    assert [apply.cursor for apply in driver.applied] == [Cursor("e1", from_seq + 1)]


@pytest.mark.parametrize(
    "reason", ["epoch_mismatch", "cursor_ahead_of_head", "retention_floor_breach", "replay_budget_exceeded"]
)
def test_a_stale_cursor_drops_the_state_and_subscribes_without_one(reason: str) -> None:
    driver = Driver(T, cursor=Cursor("old", 7)).open(T)
    out = driver.frame(frames.ErrorFrame(T, reason, "stale", stale=TopicState("e2", 0, 3)))
    assert out == [Resync(T, reason), Send(driver.session.generation, frames.Subscribe(((T, None),)))]
    driver.following(epoch="e2")
    assert driver.events(1, 2) == [1, 2]
    assert driver.session.cursor(T) == Cursor("e2", 2)


def test_subscribed_in_another_epoch_than_the_cursor_is_never_continued() -> None:
    driver = Driver(T, cursor=Cursor("e1", 7)).open(T)
    out = driver.frame(frames.Subscribed(T, "e2", 0, 9, Plan.REPLAY, 7))
    assert out == [Resync(T, "epoch_mismatch"), Send(driver.session.generation, frames.Subscribe(((T, None),)))]


def test_a_snapshot_replaces_the_state_and_events_go_on_behind_it() -> None:
    driver = Driver(T, cursor=Cursor("e1", 2)).open(T)
    assert driver.frame(frames.Subscribed(T, "e2", 5, 12, Plan.SNAPSHOT, 10))[0] == Resync(T, "epoch_mismatch")
    driver.frame(frames.Subscribed(T, "e2", 5, 12, Plan.SNAPSHOT, 10))
    assert driver.session.cursor(T) is None, "an announced snapshot that never comes must not become a cursor"
    assert driver.events(11) == []
    assert driver.frame(frames.Snapshot(T, 10, b"all")) == [Apply(T, Cursor("e2", 10), b"all", 1, snapshot=True)]
    assert driver.events(11) == [10, 11]


def taking_snapshots(chains: Chains | None = None) -> Driver:
    driver = Driver(chains=chains)
    driver.session.subscribe(T, None, Instant(0, 0.5), True)
    return driver.open(T)


def part(number: int, parts: int = 3, seq: int = 10) -> frames.Snapshot:
    return frames.Snapshot(T, seq, b"-%d" % number, part=number, parts=parts)


def test_a_run_begins_with_a_snapshot_in_parts_and_goes_on_with_its_chain() -> None:
    driver = taking_snapshots(Concatenated())
    driver.frame(frames.Subscribed(T, "e1", 0, 11, Plan.SNAPSHOT, 10, b"chain at 10 "))
    assert [driver.frame(part(1)), driver.frame(part(2))] == [[], []], "nothing counts before the last part"
    assert driver.session.cursor(T) is None
    assert driver.frame(part(3)) == [Apply(T, Cursor("e1", 10, b"chain at 10 "), b"-1-2-3", 1, snapshot=True)]
    assert driver.events(11) == [10, 11]
    driver.cut()
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 11, b"chain at 10 11")),), (T,))], "it still takes them"


def test_parts_that_a_broken_connection_has_brought_count_for_nothing() -> None:
    driver = taking_snapshots()
    driver.frame(frames.Subscribed(T, "e1", 0, 10, Plan.SNAPSHOT, 10))
    driver.frame(part(1))
    driver.cut()
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None),), (T,))]
    driver.frame(frames.Subscribed(T, "e1", 0, 12, Plan.SNAPSHOT, 12))
    assert [len(driver.frame(part(number, 2, 12))) for number in (1, 2)] == [0, 1]
    assert driver.applied[0].payload == b"-1-2"


def test_a_snapshot_of_another_seq_than_was_announced_is_not_taken() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.Subscribed(T, "e1", 5, 12, Plan.SNAPSHOT, 10))
    assert driver.frame(frames.Snapshot(T, 9, b"all")) == [Send(1, frames.Subscribe(((T, None),)))]


def test_what_an_earlier_connection_still_says_is_dropped() -> None:
    driver = Driver(T).open(T).following()
    old = driver.session.generation
    driver.events(1)
    driver.do("disconnected", old)
    assert [type(command) for command in driver.out] == [Connect]
    assert driver.do("frame", old, frames.Event(T, 2, b"")) == []
    assert driver.do("disconnected", old) == []
    assert driver.do("connected", old) == []
    assert driver.session.generation > old


def test_backoff_doubles_with_full_jitter_and_starts_afresh_after_a_delivery() -> None:
    driver = Driver(T).open(T)
    delays = []
    for _ in range(7):
        delays.append(driver.cut())
        driver.now_ms += delays[-1]
    assert delays == [125, 250, 500, 1000, 2000, 4000, 4000]
    driver.do("connected", driver.session.generation)
    driver.welcome()
    driver.following().events(1)
    assert driver.cut() == 125


def test_a_draining_gateways_hint_is_honoured() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.Draining(3_000))
    driver.now_ms += 1_000
    assert driver.cut() == 2_000


def test_retry_after_in_a_closing_error_is_honoured() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", "rate_limited", "slow down", retry_after_ms=5_000))
    assert driver.cut() == 5_000


def test_an_expired_session_asks_for_a_new_token_before_it_connects() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", "reauth_required", "the token has expired"))
    assert driver.do("disconnected", driver.session.generation) == [NeedToken(frozenset({T}))]
    assert driver.session.state is State.NO_TOKEN
    assert driver.token(T, text="second") == [Connect(driver.session.generation, 125)]
    driver.do("connected", driver.session.generation)
    assert driver.sent() == [frames.Hello("second", "dev_1", "test/1")]


REVOKED = frames.ErrorFrame("", "token_revoked", "the session was ended")


def _revoked(driver: Driver) -> None:
    """The gateway says that the token was revoked, and closes."""
    driver.frame(REVOKED)
    driver.do("disconnected", driver.session.generation)


def test_a_revoked_token_is_replaced_once_and_the_topics_go_on() -> None:
    driver = Driver(T).open(T).following()
    _revoked(driver)
    assert driver.only(NeedToken) == [NeedToken(frozenset({T}))]
    driver.token(T, text="second")
    driver.do("connected", driver.session.generation)
    assert driver.sent() == [frames.Hello("second", "dev_1", "test/1")]
    driver.welcome()
    assert driver.session.state is State.OPEN


def test_another_revoked_token_in_a_row_ends_the_session() -> None:
    driver = Driver(T).open(T)
    _revoked(driver)
    driver.token(T, text="second")
    driver.do("connected", driver.session.generation)
    _revoked(driver)
    assert driver.only(SessionFailed)[0].reason == "token_revoked"
    assert (driver.session.state, driver.session.wake_at_ms) == (State.STOPPED, None)


def test_a_token_that_was_taken_starts_the_count_of_revoked_ones_anew() -> None:
    driver = Driver(T).open(T)
    for number in range(3):
        _revoked(driver)
        driver.token(T, text=f"token {number}")
        driver.do("connected", driver.session.generation)
        driver.welcome()
    assert driver.session.state is State.OPEN


def test_a_session_that_control_has_ended_gets_no_token_and_stops() -> None:
    driver = Driver(T).open(T)
    _revoked(driver)
    assert driver.do("no_token", "token_revoked", "sign in")[-1] == SessionFailed("token_revoked", "sign in")


@pytest.mark.parametrize("reason", ["protocol_violation", "origin_not_allowed", "unsupported_protocol_version"])
def test_a_reason_that_trying_again_cannot_help_stops_the_session(reason: str) -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.ErrorFrame("", reason, "no"))
    driver.do("disconnected", driver.session.generation)
    assert driver.only(SessionFailed)[0].reason == reason
    assert driver.session.state is State.STOPPED
    assert driver.session.wake_at_ms is None


def test_a_refused_handshake_counts_like_an_error_frame() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.token(T)
    out = driver.session.disconnected(1, Instant(0, 0.5), "overloaded", "full", 9_000)
    assert out == [Connect(driver.session.generation, 9_000)]


def test_the_token_is_refreshed_in_time_on_the_open_connection() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    assert driver.do("timer")[-1] == NeedToken(frozenset({T}))
    assert NeedToken(frozenset({T})) not in driver.do("timer"), "asked for once"
    driver.token(T, text="second")
    assert driver.sent() == [frames.RefreshToken("second")]


@pytest.mark.parametrize("expires_in_ms", [-600_000, 0, 1_000])
def test_a_wrong_clock_does_not_make_a_new_token_useless(expires_in_ms: int) -> None:
    driver = Driver(T)
    driver.do("start")
    assert driver.do("token", SyncToken("token", frozenset({T}), expires_in_ms)) == [Connect(1, 0)]
    driver.do("connected", 1)
    driver.welcome()
    driver.now_ms = int(TTL_MS * 0.8) - 1
    driver.frame(frames.Heartbeat((), 0))
    assert driver.only(NeedToken) == []
    driver.now_ms += 1
    driver.do("timer")
    assert driver.only(NeedToken) != [], "refreshed by the gateway's clock"


def test_a_token_that_comes_while_hello_is_out_is_shown_after_welcome() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    driver.do("timer")
    driver.cut()
    driver.do("connected", driver.session.generation)
    assert driver.token(T, text="second") == []
    driver.welcome()
    assert driver.sent() == [frames.RefreshToken("second"), frames.Subscribe(((T, None),))]


def test_losing_control_leaves_the_connection_open_and_asks_again_with_backoff() -> None:
    driver = Driver(T).open(T).following()
    driver.now_ms = int(TTL_MS * 0.8)
    driver.frame(frames.Heartbeat((), 0))
    driver.do("timer")
    assert driver.do("no_token", "unavailable", "control is away") == []
    driver.now_ms += 125
    assert driver.do("timer") == [NeedToken(frozenset({T}))]
    assert driver.events(1) == [1]
    assert driver.do("no_token", "reauth_required", "sign in")[-1] == SessionFailed("reauth_required", "sign in")


def test_a_topic_that_the_token_lacks_gets_a_token_first() -> None:
    driver = Driver(T).open(T).following()
    assert driver.do("subscribe", U, None) == [NeedToken(frozenset({T, U}))]
    driver.token(T, U, text="both")
    assert driver.sent() == [frames.RefreshToken("both"), frames.Subscribe(((U, None),))]


def test_a_topic_that_control_does_not_grant_fails_and_the_others_go_on() -> None:
    driver = Driver(T, U)
    driver.do("start")
    driver.token(T, refused=((U, "owner_mismatch"),))
    assert driver.only(TopicFailed)[0].reason == "owner_mismatch"
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None),))]
    assert driver.only(NeedToken) == []


def test_a_topic_error_fails_retries_or_reconnects_as_the_catalogue_says() -> None:
    driver = Driver(T, U).open(T, U)
    driver.frame(frames.ErrorFrame(U, "forbidden_topic", "no"))
    assert driver.out == [TopicFailed(U, "forbidden_topic", "no")]
    driver.frame(frames.ErrorFrame(T, "unavailable", "runtime is away", retry_after_ms=700))
    assert driver.out == []
    assert driver.session.wake_at_ms == 700
    driver.now_ms = 700
    assert driver.do("timer") == [Send(driver.session.generation, frames.Subscribe(((T, None),)))]


def test_a_topic_that_was_caught_up_with_waits_as_if_for_the_first_time() -> None:
    driver = Driver(T).open(T)
    for _ in range(2):
        driver.frame(frames.ErrorFrame(T, "unavailable", "runtime is away"))
        assert driver.session.wake_at_ms == driver.now_ms + 125
        driver.now_ms += 125
        driver.do("timer")
        driver.following().frame(frames.CaughtUp(T, 0))


def test_silence_is_death_and_pings_keep_the_gateway_awake() -> None:
    driver = Driver(T).open(T)
    driver.now_ms = 20_000
    assert driver.do("timer") == [Send(1, frames.Ping(1))]
    driver.frame(frames.Heartbeat((), 0, 1))
    driver.now_ms += 37_500
    driver.do("timer")
    assert driver.out[-2:] == [Disconnect(1), Connect(driver.session.generation, 125)]


def test_a_connection_that_neither_opens_nor_fails_is_given_up() -> None:
    driver = Driver(T)
    driver.do("start")
    driver.token(T)
    driver.now_ms = ClientLimits().connect_timeout_ms
    assert driver.do("timer") == [Disconnect(1), Connect(driver.session.generation, 125)]
    driver.do("connected", driver.session.generation)
    driver.now_ms += ClientLimits().hello_timeout_ms
    assert isinstance(driver.do("timer")[0], Disconnect)


def test_a_missed_tail_shows_in_two_heartbeats_without_progress() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    beat = frames.Heartbeat((frames.TopicHead(T, 3, "e1"),), 0)
    assert driver.frame(beat) == []
    driver.events(2)
    assert driver.frame(beat) == [], "there was progress"
    assert driver.frame(beat) == [Send(1, frames.Subscribe(((T, Cursor("e1", 2)),)))]


def beyond_repair(driver: Driver) -> None:
    """As often as the limit allows, and once more, the gateway delivers something that can't be next."""
    for _ in range(ClientLimits().max_repairs + 1):
        driver.following().frame(frames.Event(T, 9, b""))


def test_a_topic_that_can_not_be_repaired_is_asked_for_later_and_then_elsewhere() -> None:
    driver = Driver(T).open(T)
    for wait_ms in (125, 250, 500):
        beyond_repair(driver)
        assert driver.out == []
        assert driver.session.wake_at_ms == driver.now_ms + wait_ms
        driver.now_ms += wait_ms
        assert driver.do("timer") == [Send(1, frames.Subscribe(((T, Cursor("e1", 0)),)))]
    beyond_repair(driver)
    assert driver.out == [Disconnect(1), Connect(driver.session.generation, 1_000)]


def test_progress_forgets_what_could_not_be_repaired() -> None:
    driver = Driver(T).open(T)
    beyond_repair(driver)
    driver.now_ms += 125
    driver.do("timer")
    driver.following()
    driver.events(1)
    driver.following(from_seq=1)
    for _ in range(ClientLimits().max_repairs + 1):
        driver.following(from_seq=1).frame(frames.Event(T, 9, b""))
    assert driver.session.wake_at_ms == driver.now_ms + 125


def test_rewind_has_everything_after_the_stores_cursor_sent_again() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1, 2, 3)
    assert driver.do("rewind", T, Cursor("e1", 1)) == [Send(1, frames.Subscribe(((T, Cursor("e1", 1)),)))]
    driver.following(from_seq=1)
    assert driver.events(2, 3) == [1, 2, 3, 2, 3]


def test_sleep_drops_the_connection_and_waking_connects_at_once() -> None:
    driver = Driver(T).open(T).following()
    driver.events(1)
    assert driver.do("suspended") == [Disconnect(1)]
    assert driver.session.wake_at_ms is None
    assert driver.do("resumed") == [Connect(driver.session.generation, 0)]


def test_unsubscribe_tells_the_gateway_and_forgets_the_topic() -> None:
    driver = Driver(T).open(T).following()
    assert driver.do("unsubscribe", T) == [Send(1, frames.Unsubscribe((T,)))]
    assert driver.events(1) == []


def test_with_no_topic_there_is_nothing_to_connect_for() -> None:
    driver = Driver()
    assert driver.do("start") == []
    assert driver.do("subscribe", T, None) == [NeedToken(frozenset({T}))]


def test_more_topics_than_fit_one_frame_are_split() -> None:
    names = [f"run:run_01J9ZQ6T5W3M8K2N4P7R1S{i:04d}:events" for i in range(130)]
    driver = Driver(*names).open(*names)
    assert [len(frame.topics) for frame in driver.sent() if isinstance(frame, frames.Subscribe)] == [128, 2]


def test_unknown_frames_are_counted_and_a_stopped_session_is_deaf() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.UnknownFrame(99))
    assert driver.session.unknown_frames == 1
    assert driver.do("stop") == [Disconnect(1)]
    for name, arguments in [("connected", (2,)), ("timer", ()), ("resumed", ()), ("disconnected", (2,))]:
        assert driver.do(name, *arguments) == []
    assert driver.token(T) == []


inputs = st.one_of(
    st.builds(frames.Event, st.just(T), st.integers(1, 12), st.just(b"")),
    st.builds(frames.Subscribed, st.just(T), st.sampled_from(["a", "b"]), st.just(0), st.just(9),
              st.sampled_from([Plan.LIVE, Plan.REPLAY]), st.integers(0, 12)),
    st.builds(frames.CaughtUp, st.just(T), st.integers(0, 12)),
    st.builds(frames.ErrorFrame, st.just(T), st.sampled_from(["epoch_mismatch", "unavailable"]), st.just("")),
    st.builds(frames.Heartbeat, st.just((frames.TopicHead(T, 12, "a"),)), st.just(0)),
    st.sampled_from(["cut", "timer", "sleep"]),
)  # fmt: skip


@given(st.lists(inputs, max_size=60))
def test_whatever_a_gateway_says_each_lineage_is_applied_without_repetition_or_hole(
    steps: list[frames.ServerFrame | str],
) -> None:
    driver = Driver(T).open(T)
    last: Cursor | None = None
    for step in steps:
        if not isinstance(step, str):
            driver.frame(step)
        elif step == "cut":
            driver.cut()
        elif step == "timer":
            driver.now_ms += 1_000
            driver.do("timer")
        else:
            driver.do("suspended")
            driver.do("resumed")
        if driver.session.state is State.CONNECTING:
            driver.do("connected", driver.session.generation)
            driver.welcome()
        for command in driver.out:
            if isinstance(command, Resync):
                last = None
            elif isinstance(command, Apply):
                assert last is None or command.cursor == Cursor(last.epoch, last.applied_seq + 1)
                last = command.cursor


ORG_RUNS = "run:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
T2 = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"


def test_all_runs_of_an_owner_are_asked_for_once_and_a_run_that_comes_later_needs_no_token() -> None:
    driver = Driver(T, U, grants=(ORG_RUNS,))
    assert driver.do("start") == [NeedToken(frozenset({ORG_RUNS, U}))]
    driver.token(ORG_RUNS, U)
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None), (U, None)))]
    driver.do("subscribe", T2, None)
    assert driver.only(NeedToken) == []
    assert driver.sent() == [frames.Subscribe(((T2, None),))]


def test_with_an_owner_that_is_not_granted_topics_are_asked_for_by_name() -> None:
    driver = Driver(T, U, grants=(ORG_RUNS,))
    driver.do("start")
    driver.token(U, refused=((ORG_RUNS, "surface_policy_denied"),))
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.only(NeedToken) == [NeedToken(frozenset({T, U}))]
    driver.token(T, U, text="second")
    assert frames.Subscribe(((T, None),)) in driver.sent()
    assert driver.only(NeedToken) == []
