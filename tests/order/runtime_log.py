"""Our log: three replicas, each with its own sequencers, pool and tail, on the same partitions of one database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.system.ids import new_id
from oa_runlog import wire
from oa_runlog.authority.commands import Append, AssignRun, CreateRun
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import Custom, ExecSpec, RunSpec
from oa_runlog.partitions import partition_of
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState
from oa_testing.postgres import patient_settings
from services.runtime.archive.app.archive import Archive
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.authority.domain import Head
from services.runtime.authority.store import read_installation
from services.runtime.log.app.log import Log
from services.runtime.log.app.ports import LogSession, LogStore, LogTransaction
from services.runtime.log.app.tail import Tail
from services.runtime.log.domain.batch import Changes
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import SequencerLimits, TailLimits
from services.runtime.log.store.log import PostgresLog
from services.runtime.log.store.reads import PostgresReads
from services.runtime.whole_log.app.artifact_cache import ArtifactCache
from services.runtime.whole_log.app.whole_log import WholeLog
from services.runtime.whole_log.limits import ArtifactCacheLimits
from services.runtime.whole_log.store import PostgresPrunedLog
from tests.order.harness import Trouble, Uncertain

ORG, USER = new_id("org"), new_id("usr")
CONTENDED_PARTITIONS = (0, 1)
"""All runs of the test live here, so that all replicas write the same partitions all the time."""
_FAST = RunLimits(events_per_second=10_000_000, burst_events=10_000_000)
_LOST_WORD_SHARE = 0.3
_LOST_ANSWER_SHARE = 0.02
_RETRY = frozenset({"unavailable", "overloaded", "deadline_exceeded"})


class TroubledStore:
    """A log store whose transactions are slow, sometimes rolled back, and whose answers are sometimes lost."""

    def __init__(self, store: LogStore, trouble: Trouble, seed: int) -> None:
        self._store = store
        self._trouble = trouble
        self._chance = random.Random(seed)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[LogSession]:
        """A session of the real store, with trouble."""
        async with self._store.session() as session:
            yield _TroubledSession(session, self._trouble, self._chance)


class _TroubledSession:
    def __init__(self, session: LogSession, trouble: Trouble, chance: random.Random) -> None:
        self._session = session
        self._trouble = trouble
        self._chance = chance

    @property
    def is_open(self) -> bool:
        return self._session.is_open

    async def store(self, heads: Mapping[int, Head], runs: Collection[RunState], changes: Changes, now_ns: int) -> bool:
        await self._delay()
        if self._chance.random() < self._trouble.rollback_share:
            raise Refusal("unavailable", "not sent, by the test")
        stored = await self._session.store(heads, runs, changes, now_ns)
        self._lose_some_answers()
        return stored

    @asynccontextmanager
    async def transaction(self, partitions: Collection[int]) -> AsyncIterator[LogTransaction]:
        async with self._session.transaction(partitions) as transaction:
            yield transaction
            await self._delay()
            if self._chance.random() < self._trouble.rollback_share:
                raise Refusal("unavailable", "rolled back by the test")
        self._lose_some_answers()

    async def _delay(self) -> None:
        await asyncio.sleep(self._chance.random() * self._trouble.max_delay_s)

    def _lose_some_answers(self) -> None:
        if self._chance.random() < _LOST_ANSWER_SHARE:
            raise Refusal("unavailable", "committed, and the answer was lost by the test")


class _Replica:
    """What one runtime process has of the log."""

    def __init__(self, dsn: str, number: int, trouble: Trouble, seed: int) -> None:
        settings = patient_settings(dsn, pool_min=1, pool_max=6)
        self.postgres = Postgres(settings, f"replica-{number}")
        self.reads = PostgresReads(self.postgres)
        records = PostgresArchiveRecords(self.postgres)
        cache = ArtifactCache(records, Archive(records, None, 1), ArtifactCacheLimits())
        whole_log = WholeLog(self.reads, PostgresPrunedLog(self.postgres), cache)
        self.tail = Tail(whole_log, TailLimits(ring_entries=64, page_entries=50, repair_retry_ms=10))
        self.store = TroubledStore(PostgresLog(self.postgres), trouble, seed)
        self.log: Log | None = None


class RuntimeLog:
    """The subject. Each writer has a run of its own; each reader follows the tail of one replica."""

    replicas = 3

    def __init__(self, app_dsn: str, admin_dsn: str, writers: int, trouble: Trouble, seed: int) -> None:
        self._admin_dsn = admin_dsn
        self._writers = writers
        self._chance = random.Random(seed)
        self._replicas = [_Replica(app_dsn, number, trouble, seed + number) for number in range(self.replicas)]
        self._runs: list[str] = []
        self._stack = AsyncExitStack()
        self._admin: asyncpg.Connection[asyncpg.Record]

    async def __aenter__(self) -> RuntimeLog:
        self._admin = await asyncpg.connect(self._admin_dsn)
        for replica in self._replicas:
            await self._stack.enter_async_context(replica.postgres)
            installation = await read_installation(replica.postgres)
            await replica.tail.start()
            replica.tail.listen(partial(self._tell_others, replica))
            log = Log(installation, replica.store, _FAST, SequencerLimits(), _seal, replica.tail.publish)
            replica.log = await self._stack.enter_async_context(log)
            task = asyncio.create_task(replica.tail.run())

            self._stack.callback(task.cancel)
        for writer in range(self._writers):
            self._runs.append(await self._started_run(writer, installation.partitions))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self._admin.close()

    async def _started_run(self, writer: int, partitions: int) -> str:
        run_id = new_id("run")
        while partition_of(run_id, partitions) not in CONTENDED_PARTITIONS:
            run_id = new_id("run")
        spec = RunSpec("exec", ExecSpec(("true",)))
        create = CreateRun.of(run_id, ORG, USER, spec, f"writer-{writer}")
        log = self._replicas[0].log
        assert log is not None
        await _until_known(log, create)
        await _until_known(log, AssignRun(run_id, _worker(writer)))
        return run_id

    def _tell_others(self, sender: _Replica, records: Sequence[LogRecord]) -> None:
        """NOTIFY, only worse: some words get lost."""
        partition = partition_of(records[-1].run_id, 16)
        for replica in self._replicas:
            if replica is not sender and self._chance.random() > _LOST_WORD_SHARE:
                replica.tail.hint(partition, records[-1].position)

    async def append(self, replica: int, writer: int, key: str) -> None:
        """One event, with the key as its type's payload, so that readers know it."""
        log = self._replicas[replica].log
        assert log is not None
        body = Custom("test.element", {"key": key})
        command = Append.of(self._runs[writer], ORG, _worker(writer), 1, key, [body])
        try:
            await log.do(command)
        except Refusal as refusal:
            if refusal.reason not in _RETRY:
                raise
            raise Uncertain from refusal

    async def read(self, reader: int) -> AsyncIterator[tuple[str, str]]:
        """What the tail of a replica hands out, partition by partition; asserts that each run goes on by `last + 1`."""
        replica = self._replicas[reader % self.replicas]
        after, seqs = dict.fromkeys(CONTENDED_PARTITIONS, 0), dict[str, int]()
        with replica.tail.bell() as bell:
            while True:
                bell.moved()
                for partition in after:
                    for event in map(wire.decode_event, await self._page(replica, partition, after[partition])):
                        assert event.seq == seqs.get(event.run_id, 0) + 1, "a hole, or an event twice"
                        after[partition] += 1
                        seqs[event.run_id] = event.seq
                        if isinstance(event.body, Custom) and event.body.data is not None:
                            yield event.run_id, str(event.body.data["key"])
                try:
                    await asyncio.wait_for(bell.wait(), 0.05)
                except TimeoutError:
                    await self._look_at_heads(replica)

    async def _page(self, replica: _Replica, partition: int, after: int) -> Sequence[bytes]:
        try:
            return await replica.tail.read(partition, after)
        except Refusal:
            return ()

    async def _look_at_heads(self, replica: _Replica) -> None:
        """What the process does every few seconds, should the last word have got lost."""
        try:
            for partition, head in (await replica.reads.heads()).items():
                replica.tail.hint(partition, head.position)
        except Refusal:
            return

    async def kill_a_connection(self, rng: random.Random) -> None:
        """End one of the replicas' connections, whatever it is doing."""
        pids = await self._admin.fetch(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'replica-%' ORDER BY pid"
        )
        if pids:
            await self._admin.execute("SELECT pg_terminate_backend($1)", rng.choice(pids)["pid"])


async def _until_known(log: Log, command: CreateRun | AssignRun) -> None:
    while True:
        try:
            await log.do(command)
            return
        except Refusal as refusal:
            if refusal.reason == "stale_epoch":  # an assignment whose answer was lost
                return
            if refusal.reason not in _RETRY:
                raise


def _worker(writer: int) -> str:
    return f"wrk_{writer:026d}"


_KEY = Ed25519PrivateKey.generate()


def _seal(state: RunState, log_epoch: str) -> SignedReceipt:
    return SignedReceipt(state.run_id, b"{}", _KEY.sign(b"{}"), "test")
