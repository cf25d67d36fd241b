"""The server changes: a standby is promoted under load, tables come back from a dump, durability is turned off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_localstack.postgres.server import PostgresServer
from oa_platform.config.parsers import Secret
from oa_platform.health.readiness import Readiness
from oa_runlog.authority.commands import Command, CreateRun
from oa_testing.postgres import Database
from oa_testing.servers import (
    CHANGEABLE,
    DURABILITY,
    REPLICATING,
    both,
    database_server,
    dump,
    promote,
    restore,
    synchronous_standby,
    until,
)
from services.runtime.config import TailSettings
from services.runtime.log.tests.one_sequencer import (
    ORG,
    PARTITION,
    SPEC,
    USER,
    Rig,
    append,
    check_log,
    refused,
    replica,
    run_id_in,
)
from services.runtime.tests.epochs import epoch_of
from services.runtime.tests.rig import replica as whole_replica
from services.runtime.tests.rig import runtime_settings, somebody

WRITERS = 4
MORE = 20
"""Appends of each writer that must be acknowledged before the failover, and again after it."""


async def _outcome(rig: Rig, command: Command, acknowledged: list[int] | None = None) -> str:
    """The reason of a refusal; empty, and the seq is among the acknowledged ones, if there was none."""
    try:
        applied = await rig.submit(command)
    except Refusal as refusal:
        return refusal.reason
    if acknowledged is not None:
        acknowledged.append(applied.first_seq)
    return ""


class Writer:
    """Appends to a run of its own, one after the other; what is refused for the moment is sent again under its key."""

    def __init__(self, rig: Rig, run_id: str) -> None:
        self._rig = rig
        self.run_id = run_id
        self.acknowledged: list[int] = []
        self.refused = 0

    async def run(self) -> None:
        """Until canceled."""
        number = 0
        while True:
            outcome = await _outcome(self._rig, append(self.run_id, f"k{number}"), self.acknowledged)
            if outcome:
                assert outcome == "unavailable"
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            number += 1


async def grown(writers: list[Writer]) -> None:
    """Wait until each has got so many more acknowledged."""
    goals = [len(writer.acknowledged) + MORE for writer in writers]

    async def reached() -> bool:
        return all(len(writer.acknowledged) >= goal for writer, goal in zip(writers, goals, strict=True))

    await until(reached)


async def test_a_synchronous_standby_is_promoted_under_load_and_nothing_acknowledged_is_lost(scratch: Path) -> None:
    async with (
        database_server(scratch, REPLICATING, "runtime") as (primary, database),
        synchronous_standby(primary, scratch) as standby,
    ):
        dsn = both(database.runtime, primary, standby)
        settings = runtime_settings(database, tail=TailSettings(poll_interval_ms=50))
        settings = replace(settings, database=replace(settings.database, url=Secret(dsn)))
        async with whole_replica(settings, somebody().key) as runtime, replica(dsn) as rig:
            epoch = await epoch_of(runtime)
            writers = [Writer(rig, await rig.started_run()) for _ in range(WRITERS)]
            working = [asyncio.create_task(writer.run()) for writer in writers]
            await grown(writers)

            primary.kill()
            await until(lambda: _says(runtime.readiness, "postgres", "it is a standby"))
            await promote(standby)

            await grown(writers)
            await until(lambda: _is_ready(runtime.readiness))
            for task in working:
                task.cancel()
            assert await epoch_of(runtime) == epoch, "everything that was followed is there"

        promoted = Database(database.name, standby.port, database.passwords)
        await check_log(promoted.runtime, [writer.run_id for writer in writers])
        for writer in writers:
            seqs = await _stored(promoted, writer.run_id)
            assert set(writer.acknowledged) <= set(seqs)
            assert len(seqs) - len(writer.acknowledged) <= 1 + _STARTED, "each key is stored once"
            assert writer.refused > 0
        assert await _epoch_at_a_start(promoted) == epoch, "nothing has changed since"
        await restore(standby, promoted.owner, await dump(standby, promoted.owner, "runtime"))
        restored = await _epoch_at_a_start(promoted)
        assert restored != epoch, "no replica was there during the restore"
        assert await _epoch_at_a_start(promoted) == restored


async def _epoch_at_a_start(database: Database) -> str:
    """The log's epoch, as a replica finds it that is started now, and is the only one."""
    async with whole_replica(runtime_settings(database), somebody().key) as runtime:
        return await epoch_of(runtime)


_STARTED = 2
"""Events of a run before a worker appends: created, assigned."""


async def _says(readiness: Readiness, check: str, what: str) -> bool:
    return what in (await readiness.failures()).get(check, "")


async def _is_ready(readiness: Readiness) -> bool:
    return not await readiness.failures()


async def _stored(database: Database, run_id: str) -> list[int]:
    connection = await asyncpg.connect(database.owner)
    try:
        rows = await connection.fetch("SELECT seq FROM runtime.events WHERE run_id = $1", run_id)
    finally:
        await connection.close()
    return [row["seq"] for row in rows]


async def test_a_session_that_was_given_up_is_not_used_again(runtime_database: Database) -> None:
    """Though the sequencer had it for itself: it may lead to a server that is not the one of now."""
    async with replica(runtime_database.runtime) as rig:
        run_id = await rig.started_run()
        await rig.submit(append(run_id, "before"))
        before = await _sessions(runtime_database)
        await rig.postgres.expire()
        for number in range(4):
            await rig.submit(append(run_id, f"k{number}"))
        after = await _sessions(runtime_database)
        assert before
        assert after - before
        assert not before & after


async def _sessions(database: Database) -> set[int]:
    """The sessions whose last statement wrote to the log."""
    connection = await asyncpg.connect(database.admin)
    try:
        rows = await connection.fetch(_WRITING, database.name)
    finally:
        await connection.close()
    return {row["pid"] for row in rows}


_WRITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = $1 AND application_name LIKE 'sequencer-%' AND query LIKE '%decided%'
"""


# ------------------------------------------------------------------------------------------------- lost commits


@pytest.mark.parametrize("name", DURABILITY)
@pytest.mark.parametrize("new_run", [False, True], ids=["from memory", "from the database"])
async def test_what_may_be_lost_is_not_acknowledged(scratch: Path, name: str, new_run: bool) -> None:
    """The server stops to keep what it acknowledges, while sessions are open."""
    async with (
        database_server(scratch, CHANGEABLE, "runtime") as (server, database),
        replica(database.runtime, may_lose_commits=False) as rig,
    ):
        run_id = await rig.started_run()
        await rig.submit(append(run_id, "kept"))
        await _change(server, f"ALTER SYSTEM SET {name} = off")
        reasons: list[str] = []

        async def is_refused() -> bool:
            key = f"k{len(reasons)}"
            create = CreateRun.of(run_id_in(PARTITION), ORG, USER, SPEC, key)
            reasons.append(await _outcome(rig, create if new_run else append(run_id, key)))
            return bool(reasons[-1])

        await until(is_refused)  # a session hears of the change a moment after the server
        assert reasons[-1] == "unavailable"
        before = await _stored(database, run_id)
        assert (await refused(rig.submit(append(run_id, "later")))).reason == "unavailable"
        assert await _stored(database, run_id) == before, "nothing was stored"
        assert f"{name} is off" in (await refusal_of_check(rig)).message

        await _change(server, f"ALTER SYSTEM RESET {name}")
        while await _outcome(rig, append(run_id, "later")):
            await asyncio.sleep(0.02)
        assert await _stored(database, run_id) == [*before, before[-1] + 1]


async def refusal_of_check(rig: Rig) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await rig.postgres.check()
    return caught.value


async def _change(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
