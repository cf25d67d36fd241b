"""Read models from position 0, after runs have left the log: they are what they were."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest_asyncio

from oa_client.core.models import Run
from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.services import ask
from oa_platform.config.ports import PORT_OFFSETS
from oa_platform.postgres.planes import OWNER
from oa_testing.postgres import FAST, REPOSITORY, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Counting, World, signed_in

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection


SHORT_RUNS, KEPT_RUNS = 8, 2


@dataclass
class ArchivingStack:
    """A stack whose runs leave the log a second after their end, but for those of the class `audit`."""

    stack: StackUnderTest
    archive: Path

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Connection]:
        """The role that a runbook's SQL is for."""
        secrets = load_or_create(self.stack.home / "secrets")
        connection = await asyncpg.connect(role_dsn(OWNER, self.stack.ports, secrets))
        try:
            yield connection
        finally:
            await connection.close()


@pytest_asyncio.fixture
async def archiving(scratch: Path) -> AsyncIterator[ArchivingStack]:
    archive = scratch / "archive"
    runtime = {
        "OA_ARCHIVE_URL": str(archive),
        "OA_RETENTION_CLASSES": "default=1s,audit=keep",
        "OA_ARCHIVE_POLL_MS": "100",
        "OA_TAIL_RING_ENTRIES": "1",  # it would still know all of it otherwise
    }
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": runtime},
    )
    await stack.start()
    yield ArchivingStack(stack, archive)
    await stack.stop()


@dataclass
class ReadModels:
    """What can be made again from the log: the documents of all runs, and for each topic the newest row of each run.

    How many rows led to the newest is not: a batch leaves one row of a run, however many of its events it has. Nor are
    rows of workers: runtime tells of those that have not ended.
    """

    summaries: dict[str, tuple[int, bytes]]
    newest: dict[tuple[str, str], bytes]

    @classmethod
    async def read(cls, owner: Connection) -> ReadModels:
        # All of one moment: the projector may be at work.
        async with owner.transaction(isolation="repeatable_read", readonly=True):
            rows = await owner.fetch("SELECT run_id, latest_seq, summary_hash FROM projection.run_summaries")
            journal = await owner.fetch(
                "SELECT topic, seq, run_id, payload FROM projection.journal ORDER BY topic, seq"
            )
            heads = await owner.fetch("SELECT topic, head FROM projection.topic_heads")
        for topic, head in heads:
            assert [row["seq"] for row in journal if row["topic"] == topic] == list(range(1, head + 1))
        return cls(
            {row["run_id"]: (row["latest_seq"], row["summary_hash"]) for row in rows},
            {(row["topic"], row["run_id"]): row["payload"] for row in journal if not row["topic"].endswith(":workers")},
        )


async def do_runs(world: World, gates: Path) -> None:
    """Runs that go on at the same time, until all have ended and are in the read model."""
    command = Counting(gates, lines=30, parts=1).command
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        classes = ["audit"] * KEPT_RUNS + [""] * SHORT_RUNS
        runs = [await world.client.commands.start_exec(command, retention_class=one) for one in classes]
        for run in runs:
            while not _done(await world.client.commands.run(run.run_id)):
                await asyncio.sleep(0.05)
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while sum(_done(run) for run in (await world.client.commands.runs()).runs) < len(runs):
            await asyncio.sleep(0.05)


def _done(run: Run) -> bool:
    return run.status == "succeeded"


async def until_archived(owner: Connection) -> None:
    """Until only the runs that are kept have events in the log."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while await owner.fetchval("SELECT count(DISTINCT run_id) FROM runtime.events") > KEPT_RUNS:
            await asyncio.sleep(0.1)
    assert await owner.fetchval("SELECT count(*) FROM runtime.archived_runs") == SHORT_RUNS


async def from_archive(stack: StackUnderTest) -> float:
    """How many entries of the log runtime has taken out of the archive."""
    metrics = (await ask(stack.ports.runtime_ops, "/metrics")).body
    (line,) = re.findall(r"^oa_runtime_archived_entries_read_total (\S+)$", metrics, re.MULTILINE)
    return float(line)


async def forget(one: ArchivingStack, owner: Connection) -> None:
    """Stop the projector and drop what it knows: docs/runbooks/projection-stopped.md, word by word."""
    page = (REPOSITORY / "docs/runbooks/projection-stopped.md").read_text("utf-8")
    await one.stack.stop_service("projector")
    await owner.execute(page.split("```sql\n")[1].split("```")[0])
    assert (await ReadModels.read(owner)).summaries == {}


async def test_read_models_are_made_anew_after_runs_were_archived(archiving: ArchivingStack, tmp_path: Path) -> None:
    async with signed_in(archiving.stack, tmp_path / "client") as world, archiving.owner() as owner:
        await do_runs(world, tmp_path / "gates")
        before = await ReadModels.read(owner)
        assert len(before.summaries) == SHORT_RUNS + KEPT_RUNS
        await until_archived(owner)

        await forget(archiving, owner)
        await archiving.stack.start_service("projector")  # waits until it has caught up
        assert await ReadModels.read(owner) == before
        archived = await owner.fetchval("SELECT sum(cardinality(positions)) FROM runtime.archived_runs")
        assert await from_archive(archiving.stack) >= archived - 2 * 16, "all but the newest of each partition"
        assert len((await world.client.commands.runs()).runs) == SHORT_RUNS + KEPT_RUNS


async def test_without_an_object_they_wait_for_it_and_say_so(archiving: ArchivingStack, tmp_path: Path) -> None:
    async with signed_in(archiving.stack, tmp_path / "client") as world, archiving.owner() as owner:
        await do_runs(world, tmp_path / "gates")
        before = await ReadModels.read(owner)
        await until_archived(owner)
        path = sorted(archiving.archive.rglob("*.zst"))[0]
        away = path.rename(path.with_suffix(".away"))

        await forget(archiving, owner)
        await archiving.stack.start_service("projector", wait_ready=False)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while "archive_damaged" not in (await ask(archiving.stack.ports.projector_ops)).body:
                await asyncio.sleep(0.05)
        assert (await ReadModels.read(owner)).summaries != before.summaries
        away.rename(path)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while not (await ask(archiving.stack.ports.projector_ops)).ready:
                await asyncio.sleep(0.05)
        assert await ReadModels.read(owner) == before
