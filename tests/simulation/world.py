"""What is true (the authority's logs), how bad everything is at the moment, and the one source of chance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from oa_client.core.chains import RunChains
from oa_khala.frames import Cursor, TopicState
from oa_khala.topics import USER_RUNS, Topic, parse_topic
from oa_platform.auth.revocations import Revocation
from tests.simulation.trace import Trace, short

USER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X"


CHAINS = RunChains()
_AS_A_MESSAGE = b"\n"
"""The key of field 1, a string: what begins so can be read, and what does not goes out as bytes."""


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
    snapshots: dict[tuple[str, int], set[tuple[bytes, bytes]]] = field(default_factory=dict)

    def payload(self, epoch: str, seq: int) -> bytes:
        """What every reader must get for `seq` of `epoch`."""
        return self._payload(epoch, seq, self.replaced.get((epoch, seq), 0))

    def had(self, epoch: str, seq: int, payload: bytes) -> bool:
        """Whether `payload` is, or was before it was replaced, what has that seq."""
        times = range(self.replaced.get((epoch, seq), 0) + 1)
        return any(payload == self._payload(epoch, seq, time) for time in times)

    def _payload(self, epoch: str, seq: int, replaced: int) -> bytes:
        text = f"{self.topic}/{epoch}/{seq}/{replaced}".encode()
        return _AS_A_MESSAGE + bytes([len(text)]) + text if seq % 2 else text

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
        return TopicState(self.epoch, self.floor, self.head, self.is_list and self.head > 0, not self.is_list)

    @property
    def is_list(self) -> bool:
        """Whether it tells how things stand, so that everybody takes a snapshot of it; others, only who says so."""
        return parse_topic(self.topic).topic_class is USER_RUNS

    def snapshot(self) -> tuple[bytes, bytes]:
        """The state now, the fold of what has the seqs up to the head, and the chain there; both are noted."""
        times = " ".join(str(self.replaced.get((self.epoch, seq), 0)) for seq in range(1, self.head + 1))
        found = f"{self.topic}/{self.epoch} up to {self.head}: {times}".encode(), self.chain(self.head)
        self.snapshots.setdefault((self.epoch, self.head), set()).add(found)
        return found

    def had_snapshot(self, cursor: Cursor, payload: bytes) -> bool:
        """Whether `payload` is, or was before events were replaced, the state at `cursor`."""
        return (payload, cursor.chain) in self.snapshots.get((cursor.epoch, cursor.applied_seq), ())


@dataclass(frozen=True)
class Weather:
    """How bad databases and networks are: chances for each thing, and delays in seconds.

    `lose`, `repeat`: of word of a commit, where a source may miss it. `refuse`: of a question to the database.
    `disorder`: of live frames that a gateway gets out of order, one of them twice.
    """

    lose: float = 0.0
    repeat: float = 0.0
    refuse: float = 0.0
    disorder: float = 0.0
    max_delay_s: float = 0.002


class Replica(Protocol):
    """Who is told of commits."""

    def committed(self, topic: Topic, events: Sequence[tuple[int, bytes]]) -> None:
        """Events of a topic were committed."""
        ...


class World:
    """The logs, the weather, and the one source of chance."""

    def __init__(self, seed: int, topics: Iterable[str], trace: Trace) -> None:
        self.rng = random.Random(seed)
        self.logs = {topic: Log(topic) for topic in topics}
        self.weather = Weather()
        self.replicas: list[Replica] = []
        self.control_up = True
        self.revoked: list[Revocation] = []
        """In control's order: a position is how many of them are known."""
        self.trace = trace

    def delay_s(self) -> float:
        """How long the next thing takes on its way."""
        return self.rng.random() * self.weather.max_delay_s

    def later(self, what: Callable[[], None], delay_s: float | None = None) -> None:
        """Calls `what` after a while."""
        asyncio.get_running_loop().call_later(self.delay_s() if delay_s is None else delay_s, what)

    def now_ms(self) -> int:
        """The one clock of everybody."""
        return int(asyncio.get_running_loop().time() * 1000)

    def is_over(self, session_id: str, position: int | None = None) -> bool:
        """Whether the session itself was revoked, not only tokens of it, as far as who knows all up to `position`."""
        return Revocation(session_id) in self.revoked[:position]

    def has_ended(self, session_id: str) -> bool:
        """Whether the session, or any token of it, was revoked."""
        return any(one.session_id == session_id for one in self.revoked)

    def append(self, topic: str, count: int) -> None:
        """Commit events, and tell the replicas."""
        log = self.logs[topic]
        first = log.head + 1
        log.head += count
        self.trace.note("world", f"append {short(topic)} {log.epoch}/{first}..{log.head}")
        events = [(seq, log.payload(log.epoch, seq)) for seq in range(first, log.head + 1)]
        for replica in self.replicas:
            replica.committed(parse_topic(topic), events)
