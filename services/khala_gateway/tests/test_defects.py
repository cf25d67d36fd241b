"""A defect of ours ends the connection that it hits: whoever is connected would wait for ever."""

import asyncio

import pytest

from oa_khala.frames import Cursor, Form
from oa_testing.waiting import eventually
from services.khala_gateway.feeds.app.entries import Segment
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.replays import ReplayPage
from services.khala_gateway.feeds.app.topic_feed import TopicFeed
from services.khala_gateway.feeds.domain import Encoding
from services.khala_gateway.tests.harness import T2, USER, T, running


@pytest.mark.parametrize(
    ("broken", "cursor", "snapshots"),
    [("replay", None, False), ("replay", Cursor("e1", 5, b"c" * 32), False), ("snapshot", None, True)],
)
async def test_a_defect_ends_the_connection_and_nobody_waits_for_ever(
    broken: str, cursor: Cursor | None, snapshots: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object, **__: object) -> object:
        raise LookupError("a defect")

    async with running() as stack:
        stack.runtime.logs[T].has_snapshot_on_request = True
        monkeypatch.setattr(stack.sources["runtime"], broken, breaks)
        client = await stack.connect(T)
        await client.subscribe(T, cursor, snapshots=snapshots)
        assert await client.close_code() == ("internal", 1011)
        monkeypatch.undo()
        again = await stack.connect(T)
        await again.follow(T)
        await again.up_to(T, 10)


@pytest.mark.parametrize("alone", [False, True])
async def test_a_defect_in_what_is_written_ends_the_connections_that_it_hits_alone(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are delivered to together, and one that has a turn of its own; others get what came with it."""
    segment = TopicFeed.segment

    def breaks(feed: TopicFeed, next_seq: int, encoding: Encoding) -> Segment | None:
        if encoding.form is Form.JSON:
            raise LookupError("a defect")
        return segment(feed, next_seq, encoding)

    async with running() as stack:
        stack.runtime.create(T2, USER, 1)
        hit, spared, beside = await stack.connect(T, form=Form.JSON), await stack.connect(T), await stack.connect(T2)
        for client, topic in ((hit, T), (spared, T), (beside, T2)):
            await client.follow(topic)
        if alone:
            for held in stack.hub.feeds[T].subscribers:
                stack.hub.feeds[T].part(held)
        monkeypatch.setattr(TopicFeed, "segment", breaks)
        stack.runtime.append(T, 1)
        stack.runtime.append(T2, 1)
        await spared.up_to(T, 11)
        await beside.up_to(T2, 2)
        assert await hit.close_code() == ("internal", 1011)


async def test_a_defect_in_a_page_that_was_read_before_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as stack:
        first = await stack.connect(T)
        await first.follow(T)

        def breaks(*_: object) -> Segment:
            raise LookupError("a defect")

        monkeypatch.setattr(ReplayPage, "segment", breaks)
        second = await stack.connect(T)
        await second.subscribe(T)
        assert await second.close_code() == ("internal", 1011)


async def test_what_can_not_be_pumped_keeps_nothing_else_from_it() -> None:
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    flusher = Flusher(loop, 0.0)

    class Breaks:
        def pump(self) -> None:
            raise LookupError("a defect")

    class Works:
        def pump(self) -> None:
            told.append("pumped")

    flusher.ask(Breaks())
    flusher.ask(Works())
    await eventually(lambda: told == ["a defect", "pumped"])
