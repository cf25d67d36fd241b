"""Following topics over a real WebSocket whose other end cuts, repeats, loses and refuses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.core.models import SyncGrant
from oa_client.core.store import MemoryStore, WatermarkStore
from oa_client.cpython.network import WebSockets
from oa_client.cpython.sqlite_store import SqliteStore
from oa_client.cpython.websocket import WebSocket
from oa_client.follow.subscription import Subscription
from oa_client.follow.tests.fake_gateway import EPOCH, FakeGateway, FakeTokens, Fault, Topic
from oa_client.follow.updates import Applied, CaughtUp, Connection, Refused, Restarted, Update
from oa_client.transport import Socket
from oa_khala.client.commands import Apply, ClientLimits
from oa_khala.client.topics import Counts
from oa_khala.frames import Cursor, ErrorFrame
from oa_runlog.proof.chain import chain_over
from oa_testing.waiting import PATIENCE_S, eventually

RUN_ID = "run_01JD8V0000000000000000000A"
TOPIC = f"run:{RUN_ID}:events"
DEVICE = "dev_01JD8V0000000000000000000A"


def payloads(count: int, first: int = 1) -> list[bytes]:
    return [f"event {seq}".encode() for seq in range(first, first + count)]


def gateway(count: int, *faults: Fault) -> FakeGateway:
    return FakeGateway({TOPIC: Topic(payloads(count))}, deque(faults))


def subscription(tokens: FakeTokens, store: WatermarkStore) -> Subscription:
    return Subscription(DEVICE, "oa-test/0.1.0", tokens, WebSockets(), store)


async def follow_to(subscribed: Subscription, last_seq: int) -> list[Update]:
    """Follow the topic until `last_seq` has been applied; everything that happened on the way."""
    await subscribed.follow(TOPIC)
    return await take_to(subscribed, last_seq)


async def take_to(subscribed: Subscription, last_seq: int) -> list[Update]:
    """The updates until `last_seq` has been applied."""
    updates: list[Update] = []
    async with asyncio.timeout(PATIENCE_S):
        async for update in subscribed.updates():
            updates.append(update)
            if isinstance(update, Applied) and update.seq == last_seq:
                break
    return updates


def at(seq: int) -> Cursor:
    """The cursor after the first `seq` of the payloads, bound to them."""
    return Cursor(EPOCH, seq, chain_over(RUN_ID, payloads(seq)))


def seqs(updates: Sequence[Update]) -> list[int]:
    return [update.seq for update in updates if isinstance(update, Applied)]


def stored(store: WatermarkStore) -> list[bytes]:
    return [element.payload for element in store.elements(TOPIC)]


async def test_a_topic_is_applied_from_its_start_and_live() -> None:
    store = MemoryStore()
    async with gateway(3).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        updates = await follow_to(subscribed, 3)
        served.append(TOPIC, payloads(2, first=4))
        updates += await follow_to(subscribed, 5)
    assert seqs(updates) == [1, 2, 3, 4, 5]
    assert CaughtUp(TOPIC, 3) in updates
    assert (store.cursor(TOPIC), stored(store)) == (at(5), payloads(5))


async def test_cuts_and_repetitions_apply_everything_once() -> None:
    store = MemoryStore()
    faults = [Fault(cut_after=10, repeat=True), Fault(cut_after=11), Fault(repeat=True)]
    async with gateway(400, *faults).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        updates = await follow_to(subscribed, 400)
    assert seqs(updates) == list(range(1, 401))
    assert stored(store) == payloads(400)
    assert [cursor.applied_seq if cursor else None for cursor in served.subscribed_from] == [None, 10, 11]
    assert sum(isinstance(update, Connection) and not update.open for update in updates) == 2


async def test_a_lost_event_is_repaired_not_skipped() -> None:
    store = MemoryStore()
    async with (
        gateway(20, Fault(lose=7)).running() as served,
        subscription(FakeTokens(served.url), store) as subscribed,
    ):
        updates = await follow_to(subscribed, 20)
    assert seqs(updates) == list(range(1, 21))
    assert served.subscribed_from == [None, at(6)]
    assert subscribed.counts == Counts(applied=20, replayed=20, repaired=14)


async def test_our_own_cut_is_survived() -> None:
    store = MemoryStore()
    async with gateway(5).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        await follow_to(subscribed, 5)
        assert subscribed.cut()
        served.topics[TOPIC].events.extend(payloads(5, first=6))
        updates = await follow_to(subscribed, 10)
    assert seqs(updates) == [6, 7, 8, 9, 10]
    assert served.subscribed_from == [None, at(5)]


async def test_while_suspended_there_is_no_connection_and_then_it_goes_on_where_it_was() -> None:
    store = MemoryStore()
    async with gateway(5).running() as served:
        tokens = FakeTokens(served.url)
        async with subscription(tokens, store) as subscribed:
            await subscribed.follow(TOPIC)
            await subscribed.suspend()
            following = asyncio.create_task(take_to(subscribed, 10))
            await eventually(lambda: tokens.minted == 1)
            await subscribed.resume()
            await eventually(lambda: store.cursor(TOPIC) == at(5))
            await subscribed.suspend()
            async with asyncio.timeout(PATIENCE_S):
                await served.ended.wait()
            served.topics[TOPIC].events.extend(payloads(5, first=6))
            await subscribed.resume()
            updates = await following
    assert seqs(updates) == list(range(1, 11))
    assert served.subscribed_from == [None, at(5)]
    assert len(served.hellos) == 2, "one for each time that it was resumed"


async def test_a_fresh_client_resumes_from_the_stored_watermark(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite3"
    async with gateway(30).running() as served:
        first = SqliteStore(path, "u/o/d")
        async with subscription(FakeTokens(served.url), first) as subscribed:
            await subscribed.follow(TOPIC)
            async for update in subscribed.updates():
                if isinstance(update, Applied) and update.seq == 12:
                    subscribed.cut()
                    break
        stands = first.cursor(TOPIC)
        first.close()
        second = SqliteStore(path, "u/o/d")
        assert stands is not None
        assert stands.applied_seq >= 12
        if stands.applied_seq < 30:
            async with subscription(FakeTokens(served.url), second) as subscribed:
                updates = await follow_to(subscribed, 30)
            assert seqs(updates) == list(range(stands.applied_seq + 1, 31))
        assert stored(second) == payloads(30)
        second.close()


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [(Cursor("another", 2), "epoch_mismatch"), (Cursor(EPOCH, 99), "cursor_ahead_of_head")],
)
async def test_a_stale_cursor_drops_the_state_and_starts_again(cursor: Cursor, reason: str) -> None:
    store = MemoryStore()
    store.apply([Apply(TOPIC, cursor, b"of before", 1)])
    async with gateway(4).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        updates = await follow_to(subscribed, 4)
    assert Restarted(TOPIC, reason) in updates
    assert (seqs(updates), stored(store)) == ([1, 2, 3, 4], payloads(4))


async def test_what_another_process_applied_meanwhile_is_not_stored_twice() -> None:
    store = MemoryStore()
    async with gateway(3).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        await follow_to(subscribed, 3)
        store.apply([Apply(TOPIC, Cursor(EPOCH, 4), b"event 4", 1)])
        served.append(TOPIC, payloads(3, first=4))
        updates = await follow_to(subscribed, 6)
    assert (seqs(updates), stored(store)) == ([4, 5, 6], payloads(6))


async def test_a_store_that_was_emptied_meanwhile_is_filled_again() -> None:
    store = MemoryStore()
    async with gateway(3).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        await follow_to(subscribed, 3)
        store.drop(TOPIC)
        store.apply([Apply(TOPIC, Cursor(EPOCH, 1), b"event 1", 1)])
        served.append(TOPIC, payloads(2, first=4))
        await follow_to(subscribed, 5)
    assert stored(store) == payloads(5)


async def test_a_store_that_another_process_has_just_emptied_gets_no_hole() -> None:
    store = MemoryStore()
    async with gateway(3).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        await follow_to(subscribed, 3)
        store.drop(TOPIC)
        served.append(TOPIC, payloads(2, first=4))
        updates = await follow_to(subscribed, 5)
    assert [update for update in updates if isinstance(update, Restarted)] == [Restarted(TOPIC, "epoch_mismatch")]
    assert (seqs(updates), stored(store)) == ([1, 2, 3, 4, 5], payloads(5))


@pytest.mark.parametrize("count", [0, 2], ids=["nothing was stored", "something was stored"])
async def test_what_another_process_has_already_stored_again_is_not_dropped(count: int) -> None:
    store = MemoryStore()
    for seq in range(1, count + 1):
        store.apply([Apply(TOPIC, Cursor("of before", seq), b"of before", 1)])
    async with gateway(4).running() as served, subscription(FakeTokens(served.url), store) as subscribed:
        await subscribed.follow(TOPIC)
        store.drop(TOPIC)
        store.apply([Apply(TOPIC, at(seq), payloads(seq)[-1], 1) for seq in (1, 2, 3)])
        updates = await follow_to(subscribed, 4)
    restarted = [update for update in updates if isinstance(update, Restarted)]
    assert restarted == ([Restarted(TOPIC, "epoch_mismatch", at(3))] if count else [])
    assert (seqs(updates), stored(store)) == ([4] if count else [1, 2, 3, 4], payloads(4))


async def test_a_topic_that_is_not_granted_is_refused_and_the_rest_goes_on() -> None:
    other = "user:usr_01JD8V0000000000000000000A:runs"
    async with gateway(2).running() as served:
        tokens = FakeTokens(served.url, refused=((other, "owner_mismatch"),))
        async with subscription(tokens, MemoryStore()) as subscribed:
            await subscribed.follow(other)
            updates = await follow_to(subscribed, 2)
    refused = [update for update in updates if isinstance(update, Refused)]
    assert [(each.topic, each.refusal.reason) for each in refused] == [(other, "owner_mismatch")]


async def test_a_mint_that_is_down_is_asked_again() -> None:
    async with gateway(2).running() as served:
        tokens = FakeTokens(
            served.url, failures=deque([Refusal("unavailable", "down"), Refusal("unavailable", "down")])
        )
        async with subscription(tokens, MemoryStore()) as subscribed:
            assert seqs(await follow_to(subscribed, 2)) == [1, 2]
    assert tokens.minted == 1


async def test_a_mint_that_breaks_is_asked_again_and_nobody_waits_for_ever() -> None:
    async with gateway(2).running() as served:
        tokens = FakeTokens(served.url, failures=deque([RuntimeError("a defect")]))
        async with subscription(tokens, MemoryStore()) as subscribed:
            assert seqs(await follow_to(subscribed, 2)) == [1, 2]
    assert tokens.minted == 1


async def test_a_session_that_has_ended_ends_the_subscription() -> None:
    tokens = FakeTokens("ws://127.0.0.1:9/", failures=deque([Refusal("reauth_required", "signed out")]))
    async with subscription(tokens, MemoryStore()) as subscribed:
        with pytest.raises(Refusal) as caught:
            await follow_to(subscribed, 1)
    assert caught.value.reason == "reauth_required"


async def test_a_refused_token_is_replaced() -> None:
    fault = Fault(close_with=ErrorFrame("", "token_expired", "too old"))
    async with gateway(2, fault).running() as served, subscription(FakeTokens(served.url), MemoryStore()) as subscribed:
        assert seqs(await follow_to(subscribed, 2)) == [1, 2]
    assert [hello.token for hello in served.hellos] == ["token-1", "token-2"]


async def test_tokens_that_no_gateway_takes_end_the_subscription() -> None:
    limits = ClientLimits(max_refused_tokens=3)
    faults = [Fault(close_with=ErrorFrame("", "invalid_token", "of another site")) for _ in range(9)]
    async with gateway(1, *faults).running() as served:
        tokens = FakeTokens(served.url)
        async with Subscription(DEVICE, "oa-test/0.1.0", tokens, WebSockets(), MemoryStore(), limits=limits) as client:
            with pytest.raises(Refusal, match=r"3 tokens in a row were refused.*of another site") as caught:
                await follow_to(client, 1)
    assert caught.value.reason == "invalid_token"
    assert [hello.token for hello in served.hellos] == ["token-1", "token-2", "token-3"]


async def test_a_revoked_token_is_replaced_once() -> None:
    fault = Fault(close_with=ErrorFrame("", "token_revoked", "the session was ended"))
    async with gateway(2, fault).running() as served, subscription(FakeTokens(served.url), MemoryStore()) as subscribed:
        assert seqs(await follow_to(subscribed, 2)) == [1, 2]
    assert [hello.token for hello in served.hellos] == ["token-1", "token-2"]


async def test_a_session_that_was_revoked_ends_the_subscription_for_that_reason() -> None:
    fault = Fault(close_with=ErrorFrame("", "token_revoked", "the session was ended"))
    async with gateway(2, fault).running() as served:
        tokens = FakeTokens(served.url)
        grant = tokens.sync_token

        async def once(topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
            if served.hellos:
                raise Refusal("reauth_required", "the session has ended (token_revoked)")
            return await grant(topics, surface=surface, ttl_seconds=ttl_seconds)

        tokens.sync_token = once  # type: ignore[method-assign]
        async with subscription(tokens, MemoryStore()) as subscribed:
            with pytest.raises(Refusal) as caught:
                await follow_to(subscribed, 2)
    assert (caught.value.reason, len(served.hellos)) == ("reauth_required", 1)


async def test_what_a_gateway_says_of_the_end_is_passed_on() -> None:
    fault = Fault(close_with=ErrorFrame("", "clock_skew", "The clock of khala_gateway is 30000 ms behind."))
    async with gateway(2, fault).running() as served, subscription(FakeTokens(served.url), MemoryStore()) as subscribed:
        updates = await follow_to(subscribed, 2)
    said = [update.message for update in updates if isinstance(update, Connection) and not update.open]
    assert said == ["clock_skew: The clock of khala_gateway is 30000 ms behind."]
    assert [hello.token for hello in served.hellos] == ["token-1", "token-1"], "nothing is wrong with the token"


async def test_why_there_is_no_token_is_passed_on() -> None:
    async with gateway(2).running() as served:
        tokens = FakeTokens(served.url, failures=deque([Refusal("clock_skew", "runtime's clock")]))
        async with subscription(tokens, MemoryStore()) as subscribed:
            updates = await follow_to(subscribed, 2)
    assert Connection(False, "clock_skew: runtime's clock") in updates


async def test_a_token_is_not_asked_for_again_before_control_wants_it() -> None:
    asked: list[float] = []
    async with gateway(2).running() as served:
        tokens = FakeTokens(served.url, failures=deque([Refusal("rate_limited", "slower", retry_after_ms=300)]))
        grant = tokens.sync_token

        async def noted(topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
            asked.append(asyncio.get_running_loop().time())
            return await grant(topics, surface=surface, ttl_seconds=ttl_seconds)

        tokens.sync_token = noted  # type: ignore[method-assign]
        async with subscription(tokens, MemoryStore()) as subscribed:
            await follow_to(subscribed, 2)
    assert asked[1] - asked[0] >= 0.3, "the backoff alone is at most 250 ms"


async def test_a_refusal_for_good_ends_the_subscription() -> None:
    fault = Fault(close_with=ErrorFrame("", "unsupported_protocol_version", "too old a client"))
    async with gateway(2, fault).running() as served, subscription(FakeTokens(served.url), MemoryStore()) as subscribed:
        with pytest.raises(Refusal) as caught:
            await follow_to(subscribed, 2)
    assert caught.value.reason == "unsupported_protocol_version"


async def test_a_subscription_that_has_ended_leaves_no_connection_open() -> None:
    fault = Fault(close_with=ErrorFrame("", "unsupported_protocol_version", "too old a client"), stays=True)
    async with gateway(2, fault).running() as served:
        async with subscription(FakeTokens(served.url), MemoryStore()) as subscribed:
            with pytest.raises(Refusal):
                await follow_to(subscribed, 2)
        async with asyncio.timeout(PATIENCE_S):
            await served.ended.wait()


class BreakingSockets(WebSockets):
    """Breaks in a way that no network does, as with a host that can't be a name, before it opens anything."""

    def __init__(self, *breaks: Exception) -> None:
        super().__init__()
        self._breaks = deque(breaks)

    async def open(self, url: str, subprotocol: str) -> Socket:
        if self._breaks:
            raise self._breaks.popleft()
        return await super().open(url, subprotocol)


async def test_whatever_keeps_a_connection_from_opening_is_said_and_it_is_opened_again() -> None:
    """The limit on the time of an attempt is far away: nothing else would tell of the end of this one."""
    limits = ClientLimits(connect_timeout_ms=3_600_000)
    async with gateway(2).running() as served:
        sockets = BreakingSockets(UnicodeError("label empty or too long"))
        tokens = FakeTokens(served.url)
        async with Subscription(DEVICE, "oa-test/0.1.0", tokens, sockets, MemoryStore(), limits=limits) as subscribed:
            updates = await follow_to(subscribed, 2)
    broken = [update.message for update in updates if isinstance(update, Connection) and not update.open]
    assert len(broken) == 1
    assert "UnicodeError" in broken[0]


async def test_a_connection_that_breaks_as_no_network_does_is_closed_and_opened_again() -> None:
    class Breaks(WebSocket):
        async def receive(self) -> bytes:
            raise ValueError("a defect")

    class Once(WebSockets):
        opened = 0

        async def open(self, url: str, subprotocol: str) -> Socket:
            opened = await super().open(url, subprotocol)
            assert isinstance(opened, WebSocket)
            self.opened += 1
            return Breaks(opened._connection) if self.opened == 1 else opened

    async with gateway(2).running() as served:
        tokens, store = FakeTokens(served.url), MemoryStore()
        async with Subscription(DEVICE, "oa-test/0.1.0", tokens, Once(), store) as subscribed:
            await follow_to(subscribed, 2)
            async with asyncio.timeout(PATIENCE_S):
                await served.ended.wait()


async def test_a_setting_that_keeps_a_connection_from_opening_ends_the_subscription() -> None:
    sockets = BreakingSockets(Refusal("invalid_setting", "the file of authorities can't be used", field="OA_CA_FILE"))
    async with (
        gateway(2).running() as served,
        Subscription(DEVICE, "oa-test/0.1.0", FakeTokens(served.url), sockets, MemoryStore()) as subscribed,
    ):
        with pytest.raises(Refusal) as caught:
            await follow_to(subscribed, 2)
    assert caught.value.reason == "invalid_setting"


async def test_a_close_that_is_interrupted_leaves_no_task_behind() -> None:
    class Stays(WebSocket):
        """Its other end does not take part in the closing handshake."""

        async def close(self) -> None:
            closing.set()
            await asyncio.Event().wait()

    class Staying(WebSockets):
        async def open(self, url: str, subprotocol: str) -> Socket:
            opened = await super().open(url, subprotocol)
            assert isinstance(opened, WebSocket)
            return Stays(opened._connection)

    closing = asyncio.Event()
    before = asyncio.all_tasks()
    async with gateway(2).running() as served:
        subscribed = Subscription(DEVICE, "oa-test/0.1.0", FakeTokens(served.url), Staying(), MemoryStore())
        await follow_to(subscribed, 2)
        ending = asyncio.create_task(subscribed.close())
        await closing.wait()
        links = [link.task for link in subscribed._links.values()]
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        assert [task.done() for task in links] == [True]
    assert asyncio.all_tasks() == before


async def test_reading_stops_while_nobody_takes_the_updates() -> None:
    """Memory is bounded: what is not taken stays with the gateway."""
    big = [b"x" * 20_000 for _ in range(6_000)]
    served = FakeGateway({TOPIC: Topic(big)})
    store = MemoryStore()
    async with served.running(), subscription(FakeTokens(served.url), store) as subscribed:
        await subscribed.follow(TOPIC)
        async for update in subscribed.updates():
            if isinstance(update, Applied):
                break
        await asyncio.sleep(0.3)
        stands = store.cursor(TOPIC)
        assert stands is not None
        assert stands.applied_seq <= 256
        assert subscribed._inputs.qsize() <= 512
        assert seqs(await follow_to(subscribed, 6_000)) == list(range(2, 6_001))
