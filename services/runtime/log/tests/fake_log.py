"""A log in memory, for tests of the sequencer without a database: it can be held, cut off, and out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from oa_base.refusal import Refusal
from oa_runlog.authority.decide import KnownKey
from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Changes, CreateKey, Snapshot, Wanted, create_key
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.domain.shares import Share


class FakeLog:
    """A LogStore. It asserts that no two batches are under way on one partition of this process."""

    def __init__(self) -> None:
        self.heads = {number: Head(0, b"") for number in range(16)}
        self.records: dict[int, list[LogRecord]] = {}
        self.batches: list[tuple[str, list[int]]] = []
        """How each batch was stored ("unread" or "read"), and its partitions."""
        self.sessions: list[FakeSession] = []
        self.is_away = False
        self.failing: set[int] = set()
        """Partitions of which nothing can be stored: the connection breaks, as `failure` says."""
        self.failure: type[BaseException] = ConnectionResetError
        self.defective: set[str] = set()
        """Runs whose changes the database refuses, and with them all of their batch."""
        self.reached: dict[int, asyncio.Event] = {}
        """Set once a batch waits for a partition that is held."""
        self._held: dict[int, asyncio.Event] = {}
        self._under_way: set[int] = set()
        self._runs: dict[str, RunState] = {}
        self._appends: dict[tuple[str, str], KnownKey] = {}
        self._creates: dict[CreateKey, KnownKey] = {}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[FakeSession]:
        await asyncio.sleep(0)
        if self.is_away:
            raise Refusal("unavailable", "away")
        session = FakeSession(self)
        self.sessions.append(session)
        yield session

    def hold(self, partition: int) -> None:
        """Let batches of a partition wait before they are stored."""
        self._held[partition] = asyncio.Event()
        self.reached[partition] = asyncio.Event()

    def let_go(self, partition: int) -> None:
        """Let them go on."""
        self._held.pop(partition).set()

    def snapshot(self, wanted: Wanted) -> Snapshot:
        """What is stored of what is wanted."""
        runs = {run_id: self._runs[run_id] for run_id in wanted.run_ids if run_id in self._runs}
        return Snapshot(1_000_000_000, "epoch", runs, dict(self._appends), dict(self._creates))

    def is_at(self, heads: Mapping[int, Head], runs: Collection[RunState]) -> bool:
        """Whether these are what is stored."""
        return all(self.heads[number] == head for number, head in heads.items()) and all(
            self._runs[run.run_id] == run for run in runs
        )

    @asynccontextmanager
    async def storing(self, partitions: Collection[int]) -> AsyncIterator[None]:
        """One batch."""
        assert self._under_way.isdisjoint(partitions)
        self._under_way.update(partitions)
        try:
            for partition in partitions:
                if partition in self._held:
                    self.reached[partition].set()
                    await self._held[partition].wait()
            await asyncio.sleep(0)
            if self.failing.intersection(partitions):
                raise self.failure
            yield
        finally:
            self._under_way.difference_update(partitions)

    def store(self, how: str, changes: Changes) -> None:
        """At once."""
        if self.defective.intersection(changes.runs):
            raise KeyError("a defect")
        self.batches.append((how, sorted(changes.heads)))
        self.heads |= changes.heads
        self._runs |= changes.runs
        for run_id, created in changes.created.items():
            self._creates[create_key(created)] = KnownKey(run_id, created.fingerprint, 1, 1)
        for (run_id, first), key in changes.keys.items():
            known = KnownKey(run_id, key.fingerprint, first, key.batch_count)
            self._appends[run_id, key.idempotency_key] = known
        for partition, records in changes.records.items():
            self.records.setdefault(partition, []).extend(records)

    def has_key(self, changes: Changes) -> bool:
        """Whether an idempotency key of these was used before."""
        return any((run_id, key.idempotency_key) in self._appends for (run_id, _), key in changes.keys.items()) or any(
            create_key(created) in self._creates for created in changes.created.values()
        )


class FakeSession:
    """One connection; `is_open` can be taken away."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.is_open = True

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        async with self._log.storing(list(heads)):
            if not self._log.is_at(heads, runs) or self._log.has_key(changes):
                return False
            self._log.store("unread", changes)
            return True

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[FakeTransaction]:
        async with self._log.storing(partitions):
            yield FakeTransaction(self._log, {number: self._log.heads[number] for number in partitions})


class FakeTransaction:
    """Its heads can't move."""

    def __init__(self, log: FakeLog, heads: Mapping[int, Head]) -> None:
        self._log = log
        self.heads = heads

    async def read(self, wanted: Wanted) -> Snapshot:
        return self._log.snapshot(wanted)

    async def counted(self, shares: Sequence[Share]) -> dict[Share, int]:
        raise AssertionError("no share grows here")

    async def lenders(self, parents: Mapping[str, str]) -> dict[str, str]:
        raise AssertionError("no share grows here")

    async def store(self, changes: Changes, now_ns: int) -> None:
        self._log.store("read", changes)
