"""Topics, followed by a program: in order, once, from where it was, over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from oa_base.refusal import Refusal
from oa_client.follow.tests.fake_gateway import FakeGateway, Fault, Topic
from oa_client.follow.tests.subscribing import Subscribing
from oa_client.sdk.client import Client
from oa_client.sdk.topics import TopicUpdate, UpdateKind
from oa_testing.waiting import PATIENCE_S
from openagents.sync.v1 import frame_pb2

ENV = {"OA_CONTROL_URL": "http://127.0.0.1:1", "OA_API_KEY": "oak_1"}
MINE, OURS = "user:usr_01JD8V0000000000000000000A:runs", "org:org_01JD8V0000000000000000000A:runs"


@asynccontextmanager
async def client_of(gateway: FakeGateway, *refused: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with gateway.running(), Client.from_env(ENV) as client:
        refusals = tuple((topic, "forbidden_topic") for topic in refused)
        monkeypatch.setattr(client, "_following", Subscribing(gateway.url, refusals))
        yield client


async def first(updates: AsyncGenerator[TopicUpdate, None], count: int) -> list[TopicUpdate]:
    async with asyncio.timeout(PATIENCE_S), aclosing(updates):
        return [await anext(updates) for _ in range(count)]


def said(update: TopicUpdate) -> tuple[str, int, bytes]:
    return str(update.kind), update.seq, update.payload


async def test_what_a_topic_has_comes_first_then_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway({MINE: Topic([b"a", b"b"])})
    async with client_of(gateway, monkeypatch=monkeypatch) as client, aclosing(client.topic(MINE)) as updates:
        async with asyncio.timeout(PATIENCE_S):
            come = [said(await anext(updates)) for _ in range(3)]
            gateway.append(MINE, [b"c"])
            come.append(said(await anext(updates)))
    assert come == [("event", 1, b"a"), ("event", 2, b"b"), ("caught_up", 2, b""), ("event", 3, b"c")]


async def test_no_topics_have_no_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway({})
    async with client_of(gateway, monkeypatch=monkeypatch) as client, asyncio.timeout(PATIENCE_S):
        assert [update async for update in client.topics({})] == []


async def test_it_goes_on_after_a_cut_and_after_the_cursor_that_was_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway({MINE: Topic([b"a", b"b", b"c"])})
    gateway.faults.append(Fault(cut_after=1))
    async with client_of(gateway, monkeypatch=monkeypatch) as client:
        come = [update for update in await first(client.topic(MINE), 3) if update.kind is UpdateKind.EVENT]
        assert [update.seq for update in come] == [1, 2, 3]
        rest = await first(client.topic(MINE, come[1].cursor), 2)
    assert [said(update) for update in rest] == [("event", 3, b"c"), ("caught_up", 3, b"")]


async def test_what_cant_be_continued_starts_over_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway({MINE: Topic([b"a"])})
    async with client_of(gateway, monkeypatch=monkeypatch) as client:
        other = '{"epoch":"another","appliedSeq":1,"chain":""}'
        restarted, event = await first(client.topic(MINE, other), 2)
    assert (restarted.kind, restarted.reason) == (UpdateKind.RESTARTED, "epoch_mismatch")
    assert said(event) == ("event", 1, b"a")


async def test_a_list_begins_with_all_of_its_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = frame_pb2.DocumentSet(documents=[b"two", b"one"]).SerializeToString()
    gateway = FakeGateway({MINE: Topic([b"one", b"two"], floor=2, snapshots={2: (listed, b"")})})
    async with client_of(gateway, monkeypatch=monkeypatch) as client, aclosing(client.topic(MINE)) as updates:
        async with asyncio.timeout(PATIENCE_S):
            snapshot, caught_up = await anext(updates), await anext(updates)
            gateway.append(MINE, [b"three"])
            event = await anext(updates)
    assert (snapshot.kind, snapshot.seq, snapshot.documents) == (UpdateKind.SNAPSHOT, 2, (b"two", b"one"))
    assert (caught_up.kind, caught_up.documents) == (UpdateKind.CAUGHT_UP, ())
    assert event.documents == (b"three",)


async def test_several_share_a_connection_and_one_that_is_refused_takes_none_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = FakeGateway({MINE: Topic([b"a"])})
    async with client_of(gateway, OURS, monkeypatch=monkeypatch) as client:
        come = await first(client.topics({OURS: "", MINE: ""}), 3)
    refused = next(update for update in come if update.kind is UpdateKind.REFUSED)
    assert (refused.topic, refused.reason) == (OURS, "forbidden_topic")
    assert [said(update) for update in come if update.topic == MINE] == [("event", 1, b"a"), ("caught_up", 1, b"")]
    assert len(gateway.hellos) == 1


async def test_it_ends_when_nothing_is_left_to_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway({})
    async with client_of(gateway, OURS, monkeypatch=monkeypatch) as client, asyncio.timeout(PATIENCE_S):
        assert [update.kind async for update in client.topics({OURS: ""})] == [UpdateKind.REFUSED]
        with pytest.raises(Refusal, match="forbidden_topic"):
            await anext(client.topic(OURS))


@pytest.mark.parametrize(
    ("name", "cursor", "snapshots", "field"),
    [
        (5, "", False, "cursors"),
        (MINE, 5, False, f"cursors[{MINE}]"),
        (MINE, "no cursor", False, "cursor"),
        (MINE, "", "yes", "snapshots"),
    ],
)
async def test_what_is_of_another_kind_is_refused_by_its_name(
    name: str, cursor: str, snapshots: bool, field: str
) -> None:
    async with Client.from_env(ENV) as client:
        with pytest.raises(Refusal) as refused:
            await anext(client.topic(name, cursor, snapshots=snapshots))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)
