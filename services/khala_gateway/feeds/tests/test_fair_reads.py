"""What the gateway asks a source for is asked in turn for all owners of topics, however much one of them wants."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from oa_khala.frames import Cursor, TopicState
from oa_khala.topics import Topic, parse_topic
from oa_platform.tasks.ending import cancel_and_wait
from oa_testing.waiting import eventually
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import HistoryPage, TopicSnapshot

Ask = Callable[[Topic, str], Awaitable[object]]


def _topic(number: int) -> Topic:
    return parse_topic(f"run:run_{number:026}:events")


class _Source:
    """Answers one question after the other, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Semaphore(0)

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        await self._answer(topic)
        return TopicSnapshot("e", 1, b"")

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        await self._answer(topic)
        return HistoryPage("e", 1, [], 0, 0)

    async def _answer(self, topic: str) -> None:
        self.asked.append(topic)
        await self.answers.acquire()


def _snapshots(source: _Source) -> Ask:
    reader = Snapshots({"runtime": source}, HubLimits(concurrent_snapshots=1))  # type: ignore[dict-item]
    return lambda topic, owner: reader.read(topic, TopicState("e", 0, 1), True, owner)


def _pages(source: _Source) -> Ask:
    reader = ReplayReader({"runtime": source}, HubLimits(concurrent_replays=1))  # type: ignore[dict-item]
    return lambda topic, owner: reader.read(topic, "e", 0, reader.tick(), owner)


def _cursors(source: _Source) -> Ask:
    reader = Confirmations({"runtime": source}, concurrent=1)  # type: ignore[dict-item]
    return lambda topic, owner: reader.confirm(topic, Cursor("e", 1, b""), owner)


@pytest.mark.parametrize("made", [_snapshots, _pages, _cursors])
async def test_who_wants_one_thing_waits_for_one_of_who_wants_many(made: Callable[[_Source], Ask]) -> None:
    source = _Source()
    ask = made(source)
    wanted = [(_topic(number), "org_flood") for number in range(50)] + [(_topic(99), "org_quiet")]
    asking = [asyncio.ensure_future(ask(topic, owner)) for topic, owner in wanted]
    for count in range(1, 4):
        await eventually(lambda count=count: len(source.asked) == count)  # type: ignore[misc]
        source.answers.release()
    flood = [str(topic) for topic, _ in wanted]
    assert source.asked[:3] == [flood[0], flood[1], str(_topic(99))]
    await cancel_and_wait(*asking)
