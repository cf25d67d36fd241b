"""The projection on a real database, as it is wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc.aio

from oa_base.refusal import Refusal
from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.lineage import PostgresHistories
from oa_platform.postgres.pool import Postgres
from oa_runlog import events as e
from oa_testing.waiting import PATIENCE_S
from oa_topics.hub import TopicHub
from oa_topics.store import TopicLimits
from services.projector.journal.app import Publication, Unreported
from services.projector.journal.store import PostgresJournalStore
from services.projector.lineage.app import follow, journal_lineage
from services.projector.lineage.store import PostgresHistory
from services.projector.notifications.door import encode_notification
from services.projector.projection.app import Applied, Tail
from services.projector.projection.domain import Checkpoint
from services.projector.projection.door import GrpcLogSource
from services.projector.projection.limits import TailLimits
from services.projector.projection.metrics import Progress
from services.projector.projection.store import PostgresCheckpointStore
from services.projector.set_aside.app import Retries
from services.projector.set_aside.limits import SetAsideLimits
from services.projector.set_aside.store import PostgresSetAside
from services.projector.summaries.app import Reads, SummaryProjection
from services.projector.summaries.domain import PROJECTION, VERSION, Encoders, RunSummary
from services.projector.summaries.door import SummaryCodec
from services.projector.summaries.store import PostgresSummaryStore
from services.projector.tests import histories as h
from services.projector.tests.fake_log import EPOCH
from services.projector.wiring import journal_topics, transactions

CODEC = SummaryCodec()
ENCODERS = Encoders(CODEC.encode, encode_notification)
TOPIC_LIMITS = TopicLimits(poll_interval_ms=500)
QUICK = TailLimits(backoff_min_ms=1, backoff_max_ms=10, heads_interval_ms=20)
WAIT_S = PATIENCE_S


class Rig:
    """One process's worth of a projector, without its doors."""

    def __init__(self, postgres: Postgres, limits: TopicLimits = TOPIC_LIMITS) -> None:
        self.postgres = postgres
        self.checkpoints = PostgresCheckpointStore(postgres, PROJECTION, VERSION)
        self.journal = PostgresJournalStore(postgres)
        self.summaries = PostgresSummaryStore(postgres, CODEC)
        self.progress = Progress()
        self.histories = PostgresHistories(postgres, PostgresHistory)
        self.lineage = journal_lineage(self.histories, "rep", QUICK.heads_interval_ms / 1000)
        self.hub = TopicHub(journal_topics(postgres, self.lineage), limits, Unreported())
        self.publication = Publication(self.hub)
        follow(self.lineage, self.publication)
        self.reads = Reads(self.summaries)
        self.broken = Quarantine("projection", "run_id", QuarantineSettings(retry_s=0.05))
        aside = SetAsideLimits(max_runs=2, page_entries=3)
        self.projection = SummaryProjection(
            transactions(postgres, CODEC), ENCODERS, self.publication, self.broken, aside
        )
        self.waiting = PostgresSetAside(postgres, VERSION)
        self.retries = Retries(self.waiting, self.projection.catch_up, self.broken, SetAsideLimits())

    async def applied(self, checkpoint: Checkpoint, events: list[e.RunEvent]) -> Applied:
        """Apply what follows `checkpoint`."""
        return await self.projection.apply(checkpoint, h.batch(checkpoint.partition, checkpoint.position + 1, events))

    async def apply(self, checkpoint: Checkpoint, events: list[e.RunEvent]) -> Checkpoint:
        """Apply what follows `checkpoint`; returns the next one."""
        return (await self.applied(checkpoint, events)).checkpoint

    def break_run(self, run_id: str) -> None:
        """A defect: from now on, the run's summary can't be encoded."""

        def encode(summary: RunSummary) -> bytes:
            if summary.run_id == run_id:
                raise KeyError("a defect")
            return CODEC.encode(summary)

        self.projection._encoders = Encoders(encode, encode_notification)

    def mend_run(self) -> None:
        """The end of `break_run`."""
        self.projection._encoders = ENCODERS

    async def look_again(self) -> None:
        """Look for a loss, as soon as the database can be reached."""
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return await self.lineage.open()
                except Refusal:
                    await asyncio.sleep(0.02)

    async def fill(self, runs: int = 5) -> None:
        """`runs` runs of ours, each in a batch of its own: as many rows on each topic."""
        checkpoint = await self.checkpoint()
        for number in range(runs):
            checkpoint = await self.apply(checkpoint, h.whole_run(number))

    async def checkpoint(self, partition: int = 0) -> Checkpoint:
        """The stored checkpoint."""
        return (await self.checkpoints.ensure(EPOCH, [partition]))[partition]

    def tail(self, channel: grpc.aio.Channel, limits: TailLimits = QUICK) -> Tail:
        """A tail of the log behind `channel`."""
        return Tail(GrpcLogSource(channel), self.checkpoints, self.projection, self.progress, limits=limits)


@asynccontextmanager
async def running(tail: Tail) -> AsyncIterator[asyncio.Task[None]]:
    """The tail at work for the time of the block."""
    task = asyncio.create_task(tail.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Wait for a condition; fails when it does not come true."""
    async with asyncio.timeout(wait_s):
        while not condition():
            await asyncio.sleep(0.005)


async def check_everything_once(rig: Rig, runs: list[list[e.RunEvent]]) -> None:
    """Every run stands where its log ends, every topic is 1, 2, 3, …, and its newest rows are the summaries."""
    newest: dict[str, dict[str, bytes]] = {}
    for topic in {f"user:{h.ulid('usr', n)}:runs" for n in range(3)} | {
        f"org:{h.ulid('org', n)}:runs" for n in range(2)
    }:
        rows = await rig.journal.page(topic, 0, 100_000)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        seen: dict[str, int] = {}
        for row in rows:
            told = CODEC.decode(row.payload)
            assert told.latest_seq > seen.get(told.run_id, 0)
            seen[told.run_id] = told.latest_seq
            newest.setdefault(told.run_id, {})[topic] = row.payload
    for run in runs:
        summary = await rig.summaries.summary(run[0].run_id)
        assert summary is not None
        assert summary.latest_seq == len(run)
        assert set(newest[run[0].run_id].values()) == {CODEC.encode(summary)}
        assert len(newest[run[0].run_id]) == 2
