"""Kills at random moments, while runs start and end, receipts are merged, and runs are archived."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from tests.kills.check import Connection, Findings, check
from tests.kills.load import Auditor, People
from tests.kills.site import Site

SETTLE_S = 60.0
IMPATIENT = 0.25
"""Share of the kills that come before the process is ready."""
RUNS_OF_A_LIFE = 5
"""So many more runs have ended before a process that was ready is killed: it was no idle one."""


@dataclass
class Report:
    """What a campaign saw. `archived` and `merged` are how many there were at each kill."""

    kills: int = 0
    ended: int = 0
    archived: list[int] = field(default_factory=list)
    merged: list[int] = field(default_factory=list)
    caught: int = 0
    """Kills that left something to be seen: a file half written, or an object without a record."""
    wrong: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled, or half there."""
        return not self.wrong


async def campaign(database: Database, root: Path, *, kills: int, max_life_s: float, seed: int) -> Report:
    """Kill so often, each time after at most so long a life, then let everything come to its end."""
    chance = random.Random(seed)
    report = Report()
    async with Site(database, root) as site, _looking(database) as connection:
        people, auditor = People(site, seed), Auditor(site)
        await site.start()
        await site.until_ready()
        await people.worked_runs(5)
        async with _meanwhile(people.go_on(0.01), people.go_on(0.03), auditor.go_on(0.03)):
            is_ready = True
            for _ in range(kills):
                if is_ready:
                    await _at_work(people)
                await asyncio.sleep(chance.uniform(0, max_life_s))
                site.kill()
                _note(report, await check(connection, site.archive), site)
                await site.start()
                is_ready = chance.random() > IMPATIENT
                if is_ready:
                    await site.until_ready()
            await site.until_ready()
        found = await settled(connection, site)
        report.kills, report.ended = site.kills, len(people.ended)
        report.wrong += await last_look(found, people, auditor, site)
    return report


async def _at_work(people: People) -> None:
    goal = len(people.ended) + RUNS_OF_A_LIFE
    async with asyncio.timeout(PATIENCE_S):
        while len(people.ended) < goal:
            await asyncio.sleep(0.005)


async def last_look(found: Findings, people: People, auditor: Auditor, site: Site) -> list[str]:
    """What is wrong when everything has come to its end."""
    wrong = list(found.wrong)
    if not found.is_settled:
        wrong.append(f"it does not come to its end: {found}")
    if people.ended - found.finished:
        wrong.append(f"runs are gone that had ended: {people.ended - found.finished}")
    if found.unrecorded_objects:
        wrong.append(f"{found.unrecorded_objects} objects were never recorded")
    newest = await auditor.look()
    if newest.size != len(found.finished):
        wrong.append(f"the log of receipts has {newest.size} leaves, of {len(found.finished)} runs")
    for checkpoint in auditor.kept:
        await auditor.hold_against(checkpoint, newest)
    return wrong


async def settled(connection: Connection, site: Site) -> Findings:
    """How everything stands when nothing is left to be done, or after a long wait."""
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        found = await check(connection, site.archive)
        if found.is_settled or found.wrong or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(0.05)


def _note(report: Report, found: Findings, site: Site) -> None:
    report.archived.append(len(found.archived))
    report.merged.append(found.merged)
    report.caught += bool(found.unrecorded_objects or site.half_written())
    report.wrong += found.wrong


@asynccontextmanager
async def _looking(database: Database) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database.admin)
    yield connection
    await connection.close()


@asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` for a block. What fails there, fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()
