"""The server changes: a standby is promoted that lagged, and tables come back from a dump."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from oa_testing.servers import REPLICATING, base_backup, both, database_server, dump, promote, restore
from services.projector.tests import histories as h
from services.projector.tests.doors import MINE
from services.projector.tests.rig import Rig


async def test_rows_that_a_standby_or_a_dump_lacks_have_their_numbers_in_another_epoch(scratch: Path) -> None:
    """Noticed by a replica that has seen them, and by one that is started afterwards."""
    async with database_server(scratch, REPLICATING, "projector") as (primary, database):
        standby = await base_backup(primary, scratch)
        promoted = Database(database.name, standby.port, database.passwords)
        try:
            async with Postgres(patient_settings(both(database.projector, primary, standby)), "projector") as postgres:
                witness = await _started(postgres)
                lost = await _told(witness, 1)
                primary.kill()
                await standby.start()
                await promote(standby)
                await witness.look_again()
                first = await _told(witness, 2)
            assert (first[0] != lost[0], first[1]) == (True, 1)

            made = await dump(standby, promoted.owner, "projection")
            async with Postgres(patient_settings(promoted.projector), "projector") as postgres:
                assert await _told(await _started(postgres), 3) == (first[0], 2), "nothing has changed since"
            await restore(standby, promoted.owner, made)
            async with Postgres(patient_settings(promoted.projector), "projector") as postgres:
                restored = await _told(await _started(postgres), 4)
            assert (restored[0] not in (first[0], lost[0]), restored[1]) == (True, 2)
            assert await _causes(promoted) == ["installed", "events_missing", "history_unknown"]
        finally:
            await standby.stop()


async def _started(postgres: Postgres) -> Rig:
    rig = Rig(postgres)
    rig.histories.on_connect(rig.lineage.confirm)
    await rig.lineage.open()
    return rig


async def _told(rig: Rig, run: int) -> tuple[str, int]:
    """Apply a run. Returns the epoch and the number of its row in the list of the person who started it."""
    await rig.apply(await rig.checkpoint(), h.whole_run(run))
    mark = next(mark for mark in reversed(rig.publication.newest) if mark.topic == MINE)
    return rig.lineage.epoch, mark.seq


async def _causes(database: Database) -> list[str]:
    connection = await asyncpg.connect(database.owner)
    try:
        rows = await connection.fetch("SELECT cause FROM projection.journal_epochs ORDER BY number")
    finally:
        await connection.close()
    return [row["cause"] for row in rows]
