"""What the sequencer's tests share: a sequencer on a real Postgres, and a check of all that it stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.system.ids import new_id
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import EventBody, ExecSpec, RunSpec, TextDelta, TextStream
from oa_runlog.partitions import partition_of
from oa_runlog.proof.signing import ReceiptSigner
from oa_runlog.state.reducer import replay
from oa_testing.postgres import patient_settings
from services.runtime.log.app.sequencer import Sequencer
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import SequencerLimits
from services.runtime.log.store.log import PostgresLog
from services.runtime.log.store.reads import PostgresReads
from services.runtime.tests.keys import RECEIPT_KEY

ORG, USER, WORKER = new_id("org"), new_id("usr"), new_id("wrk")
SPEC = RunSpec("exec", ExecSpec(("true",)))
FAST = RunLimits(events_per_second=1_000_000, burst_events=1_000_000)
PARTITION = 3
SIGNER = ReceiptSigner(RECEIPT_KEY)


def run_id_in(partition: int) -> str:
    """A new run id of this partition."""
    while partition_of(run_id := new_id("run"), 16) != partition:
        pass
    return run_id


def text(data: bytes = b"x") -> TextDelta:
    return TextDelta(TextStream.STDOUT, data)


def append(run_id: str, key: str, *bodies: EventBody, epoch: int = 1) -> Append:
    return Append.of(run_id, ORG, WORKER, epoch, key, bodies or (text(),))


class Rig:
    """One replica's sequencer, and what it published: the records of PARTITION, and the size of each batch."""

    def __init__(self, postgres: Postgres, name: str, limits: RunLimits, sequencer: SequencerLimits) -> None:
        self.postgres = postgres
        self.published: list[LogRecord] = []
        self.batches: list[int] = []
        self.sequencer = Sequencer(
            PostgresLog(postgres),
            limits,
            sequencer,
            SIGNER.sign,
            self._publish,
        )

    def _publish(self, records: Mapping[int, Sequence[LogRecord]]) -> None:
        self.published.extend(records.get(PARTITION, ()))
        self.batches.append(sum(len(its_own) for its_own in records.values()))

    def submit(self, command: Command) -> asyncio.Future[Applied]:
        return self.sequencer.submit(command, partition_of(command.run_id, 16))

    async def started_run(self, partition: int = PARTITION) -> str:
        """A run that WORKER holds with epoch 1."""
        run_id = run_id_in(partition)
        await self.submit(CreateRun.of(run_id, ORG, USER, SPEC, run_id))
        await self.submit(AssignRun(run_id, WORKER))
        return run_id


@asynccontextmanager
async def replica(
    dsn: str,
    name: str = "one",
    limits: RunLimits = FAST,
    sequencer: SequencerLimits | None = None,
    *,
    may_lose_commits: bool = True,
) -> AsyncIterator[Rig]:
    """A sequencer that works for a block, on a pool of its own."""
    settings = patient_settings(dsn, may_lose_commits=may_lose_commits, pool_min=1, pool_max=3)
    async with Postgres(settings, f"sequencer-{name}") as postgres:
        rig = Rig(postgres, name, limits, sequencer or SequencerLimits())
        task = asyncio.create_task(rig.sequencer.run())
        try:
            yield rig
        finally:
            rig.sequencer.close()
            async with asyncio.timeout(60):
                await task


async def refused(answer: asyncio.Future[Applied]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await answer
    return caught.value


async def check_log(dsn: str, runs: Sequence[str]) -> dict[str, list[bytes]]:
    """Assert that positions and seqs have no hole and that each run's row is what its events lead to."""
    settings = patient_settings(dsn, pool_min=1, pool_max=2)
    async with Postgres(settings, "checker") as postgres:
        reads = PostgresReads(postgres)
        head = (await reads.heads())[PARTITION].position
        records = await reads.log_page(PARTITION, 0, 1_000_000, 1 << 30)
        assert [record.position for record in records] == list(range(1, head + 1))
        logs = {run: [record.data for record in records if record.run_id == run] for run in runs}
        for run, log in logs.items():
            found = await reads.run(run)
            state = replay(log)
            assert found is not None
            assert state is not None
            assert found.state == state
            seqs = [record.seq for record in records if record.run_id == run]
            assert seqs == list(range(1, len(log) + 1)), "the order of positions is the order of seqs"
    return logs
