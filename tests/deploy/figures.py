"""What a roll costs those who use the cluster meanwhile. These are figures to read; no test fails by one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oa_client.cpython.sqlite_store import SqliteStore
from oa_client.follow.updates import Applied, Connection
from oa_khala.topics import run_events
from oa_runlog.wire import decode_event
from tests.e2e.world import Tail, World


@dataclass(frozen=True, slots=True)
class Appended:
    """A line of a command: when it was recorded, and how long after it had been written."""

    recorded_ns: int
    took_ms: float


@dataclass
class TimedTail(Tail):
    """A tail of a command that ends each line with the time of its writing."""

    appended: list[Appended] = field(default_factory=list)
    _read: int = 0

    def take(self, seq: int, payload: bytes) -> None:
        """One more element; see `Tail`."""
        super().take(seq, payload)
        recorded_ns = decode_event(payload).recorded_ns
        end = self.stdout.rfind(b"\n") + 1
        for line in self.stdout[self._read : end].splitlines():
            written_ns = int(line.rpartition(b" ")[2])
            self.appended.append(Appended(recorded_ns, (recorded_ns - written_ns) / 1e6))
        self._read = max(self._read, end)


@dataclass
class Followers:
    """Several who follow a run, each with a store and a connection of its own; and when they connected again."""

    world: World
    run_id: str
    folder: Path
    began_s: float = 0.0
    reconnected_s: list[float] = field(default_factory=list)

    async def follow(self, number: int) -> Tail:
        """Follow the run to its end."""
        tail, connections = Tail(self.run_id), 0
        store = SqliteStore(self.folder / f"follower-{number}.sqlite3", self.world.client.namespace)
        self.world.closing.callback(store.close)
        async with self.world.client.subscription(store) as subscription:
            await subscription.follow(run_events(self.run_id))
            async for update in subscription.updates():
                if isinstance(update, Connection) and update.open:
                    connections += 1
                    if connections > 1:
                        self.reconnected_s.append(asyncio.get_running_loop().time())
                if isinstance(update, Applied):
                    tail.take(update.seq, update.payload)
                    if tail.finish:
                        break
        return tail


def summary(appended: Sequence[Appended], rolled_at_ns: int, followers: Followers) -> Iterator[str]:
    """The lines to show."""
    for when, rows in (
        ("before the roll", [one for one in appended if one.recorded_ns < rolled_at_ns]),
        ("during the roll", [one for one in appended if one.recorded_ns >= rolled_at_ns]),
    ):
        took = sorted(one.took_ms for one in rows)
        yield f"appends {when}: {len(took)} lines, p50 {_rank(took, 0.5):.0f} ms, p99 {_rank(took, 0.99):.0f} ms"
    seconds = per_second(followers.reconnected_s, followers.began_s)
    shown = ", ".join(f"second {second}: {count}" for second, count in sorted(seconds.items()))
    yield f"followers connected again: {shown or 'never'}"


def per_second(moments_s: Iterable[float], began_s: float) -> Counter[int]:
    """How many fall into each second after the beginning."""
    return Counter(int(moment - began_s) for moment in moments_s)


def _rank(ordered: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
