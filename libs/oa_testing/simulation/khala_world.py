"""What is true (the authority's logs), and a source that tells it badly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from oa_client.chains import RunChains
from oa_errors import Refusal
from oa_khala.frames import TopicState
from oa_khala.wire import event_frame
from services.khala_gateway.app.ports import HistoryPage, SourceEvents, WatchedTopic

USER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X"


CHAINS = RunChains()


class Broken(AssertionError):
    """Something that must always hold did not."""


@dataclass
class Log:
    """One topic at its authority. `floors` are all floors that this epoch ever had.

    `replaced` says how often what had a seq was replaced by something else, unseen: the epoch stayed.
    """

    topic: str
    epoch: str = "e0"
    head: int = 0
    floor: int = 0
    floors: set[tuple[str, int]] = field(default_factory=lambda: {("e0", 0)})
    replaced: dict[tuple[str, int], int] = field(default_factory=dict)

    def payload(self, epoch: str, seq: int) -> bytes:
        """What every reader must get for `seq` of `epoch`."""
        return self._payload(epoch, seq, self.replaced.get((epoch, seq), 0))

    def had(self, epoch: str, seq: int, payload: bytes) -> bool:
        """Whether `payload` is, or was before it was replaced, what has that seq."""
        times = range(self.replaced.get((epoch, seq), 0) + 1)
        return any(payload == self._payload(epoch, seq, time) for time in times)

    def _payload(self, epoch: str, seq: int, replaced: int) -> bytes:
        return f"{self.topic}/{epoch}/{seq}/{replaced}".encode()

    def chain(self, seq: int) -> bytes:
        """Chain value of the present epoch at `seq`; empty for a topic without one."""
        chain = CHAINS.start(self.topic)
        for each in range(1, seq + 1 if chain else 0):
            chain = CHAINS.after(chain, self.payload(self.epoch, each))
        return chain

    def replace(self, kept: int, head: int) -> None:
        """What came after `kept` is lost, other events take its seqs up to `head`, and nobody notices."""
        for seq in range(kept + 1, max(self.head, head) + 1):
            self.replaced[self.epoch, seq] = self.replaced.get((self.epoch, seq), 0) + 1
        self.head = head

    def prune(self, floor: int) -> None:
        """Drop what is at or below `floor`."""
        self.floor = max(self.floor, min(floor, self.head))
        self.floors.add((self.epoch, self.floor))

    def restore(self, head: int) -> None:
        """The log comes back from a backup: another lineage, as long as `head`."""
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.head, self.floor = head, 0
        self.floors.add((self.epoch, 0))

    @property
    def state(self) -> TopicState:
        """Where it stands."""
        return TopicState(self.epoch, self.floor, self.head)


@dataclass(frozen=True)
class Weather:
    """How bad a source and a network are: chances for each thing, and delays in seconds."""

    lose: float = 0.0
    repeat: float = 0.0
    refuse_replay: float = 0.0
    lag: int = 0
    most_delay_s: float = 0.002


class World:
    """The logs, the weather, and the one source of chance."""

    def __init__(self, seed: int, topics: Iterable[str]) -> None:
        self.rng = random.Random(seed)
        self.logs = {topic: Log(topic) for topic in topics}
        self.weather = Weather()
        self.watchers: list[SimSource] = []
        self.control_up = True

    def delay_s(self) -> float:
        """How long the next thing takes on its way."""
        return self.rng.random() * self.weather.most_delay_s

    def later(self, what: Callable[[], None], delay_s: float | None = None) -> None:
        """Calls `what` after a while."""
        asyncio.get_running_loop().call_later(self.delay_s() if delay_s is None else delay_s, what)

    def now_ms(self) -> int:
        """The one clock of everybody."""
        return int(asyncio.get_running_loop().time() * 1000)

    def append(self, topic: str, count: int) -> None:
        """Commit events, and offer them to whoever watches."""
        log = self.logs[topic]
        first = log.head + 1
        log.head += count
        for watcher in self.watchers:
            watcher.committed(topic, first, log.head)


class SimSource:
    """A TopicSource of one gateway. `up` is whether its stream stands."""

    def __init__(self, world: World, events: Callable[[], SourceEvents]) -> None:
        self._world = world
        self._events = events
        self._wanted: dict[str, None] = {}
        self._carried: set[str] = set()
        self._life = 0
        self.up = True
        world.watchers.append(self)

    def add(self, topics: Iterable[str]) -> None:
        """Carry `topics`."""
        for topic in topics:
            self._wanted[topic] = None
            if self.up:
                self._world.later(lambda topic=topic, life=self._life: self._answer(topic, life))  # type: ignore[misc]

    def remove(self, topics: Iterable[str]) -> None:
        """Carry them no longer."""
        for topic in topics:
            self._wanted.pop(topic, None)
            self._carried.discard(topic)

    def go_down(self) -> None:
        """The stream breaks; what is under way is lost."""
        self.up = False
        self._life += 1
        self._carried.clear()

    def come_up(self) -> None:
        """The stream stands again: everything that is wanted is added anew."""
        if not self.up:
            self.up = True
            self.add(list(self._wanted))

    def committed(self, topic: str, first: int, last: int) -> None:
        """Offers events, as well as the weather allows."""
        if topic not in self._carried:
            return
        rng, weather = self._world.rng, self._world.weather
        seq = first
        while seq <= last:
            until = min(last, seq + rng.randrange(4))
            for _ in range(2 if rng.random() < weather.repeat else 1):
                if rng.random() >= weather.lose:
                    self._send_frames(topic, seq, until)
            seq = until + 1

    async def replay(
        self, topic: str, epoch: str, after_seq: int, max_frames: int, max_bytes: int, after_chain: bytes = b""
    ) -> HistoryPage:
        """A page of history, read at some moment between the question and the answer."""
        world = self._world
        await asyncio.sleep(world.delay_s())
        log, rng = world.logs[topic], world.rng
        if not self.up or rng.random() < world.weather.refuse_replay:
            raise Refusal("unavailable", "the source is away")
        if epoch != log.epoch:
            raise Refusal("epoch_mismatch", "another lineage")
        if after_seq < log.floor:
            raise Refusal("retention_floor_breach", "pruned")
        if after_seq > log.head:
            raise Refusal("cursor_ahead_of_head", "more than there is")
        if after_chain and (chain := log.chain(after_seq)) != after_chain:
            raise Refusal("epoch_mismatch", "other content", metadata={"chain": chain.hex()})
        seen = max(after_seq, log.head - rng.randint(0, world.weather.lag))
        last = min(seen, after_seq + rng.randint(1, max_frames))
        page = HistoryPage(epoch, after_seq + 1, self._frames(log, after_seq + 1, last), log.floor, log.head)
        await asyncio.sleep(world.delay_s())
        return page

    def _answer(self, topic: str, life: int) -> None:
        if life != self._life or topic not in self._wanted:
            return
        self._carried.add(topic)
        watched = WatchedTopic(topic, self._world.logs[topic].state, USER, "")
        self._world.later(lambda: self._tell(life, lambda: self._events().watched(watched)))

    def _send_frames(self, topic: str, first: int, last: int) -> None:
        log, life = self._world.logs[topic], self._life
        epoch, frames = log.epoch, self._frames(log, first, last)
        self._world.later(lambda: self._tell(life, lambda: self._events().frames(topic, epoch, first, frames)))

    def _tell(self, life: int, what: Callable[[], None]) -> None:
        if life == self._life:
            what()

    @staticmethod
    def _frames(log: Log, first: int, last: int) -> list[bytes]:
        return [event_frame(log.topic, seq, log.payload(log.epoch, seq)) for seq in range(first, last + 1)]
