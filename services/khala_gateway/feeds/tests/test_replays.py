"""One read of history for all who want the same page: who comes too late for it waits, and is not given what is old."""

import asyncio
from collections.abc import Iterable

from oa_khala.topics import parse_topic
from oa_khala.wire import event_frame
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sources.app.ports import HistoryPage, TopicSnapshot

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
TOPIC = parse_topic(T)


class Source:
    """Gives `pages`, one after the other, each once it is let go."""

    away = False

    def __init__(self, *pages: HistoryPage) -> None:
        self.pages = list(pages)
        self.reads: list[asyncio.Event] = []

    def add(self, topics: Iterable[str]) -> None:
        """Nothing is carried here."""

    def remove(self, topics: Iterable[str]) -> None:
        """Nothing is carried here."""

    async def snapshot(self, topic: str, max_bytes: int) -> TopicSnapshot:
        """Nobody asks for one here."""
        raise NotImplementedError

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        page, let_go = self.pages.pop(0), asyncio.Event()
        self.reads.append(let_go)
        await let_go.wait()
        return page


async def rounds() -> None:
    """Let everybody do what can be done without anything new."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_only_who_was_there_before_a_read_began_takes_what_it_finds() -> None:
    """What was committed after a read began may be missing in it, and the feed tells only those there then."""
    source = Source(HistoryPage("e", 1, [], 0, 0), HistoryPage("e", 1, [event_frame(T, 1, b"x")], 0, 1))
    reader = ReplayReader({"runtime": source}, HubLimits())
    early, beside = reader.tick(), reader.tick()
    first = asyncio.create_task(reader.read(TOPIC, "e", 0, early))
    await rounds()
    joining = asyncio.create_task(reader.read(TOPIC, "e", 0, beside))
    late = asyncio.create_task(reader.read(TOPIC, "e", 0, reader.tick()))
    await rounds()
    source.reads[0].set()
    await rounds()
    assert [len(one.result()) for one in (first, joining)] == [0, 0]
    assert len(source.reads) == 2, "who came late has the page read anew"
    source.reads[1].set()
    assert len(await late) == 1
