"""An archiver with its store, and runs that it may archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database
from services.runtime.archive.app.archive import Objects
from services.runtime.archive.app.archiver import Archiver
from services.runtime.archive.limits import ArchiveLimits
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.archive_settings import ArchiveSettings
from services.runtime.config import ReplaySettings, TailSettings
from services.runtime.retention.domain import RetentionClasses
from services.runtime.tests.archiving import archiver_of
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.pools import postgres_of
from services.runtime.tests.rig import (
    Replica,
    Somebody,
    replica,
    runtime_settings,
    somebody,
)

OUTPUTS = (b"first", b"second", b"third")


def only_default(age_s: int) -> RetentionClasses:
    """One class, with this age."""
    return RetentionClasses((("default", age_s),))


@dataclass
class Rig:
    """A replica with three finished runs, and an archiver that is called by hand."""

    runtime: Replica
    who: Somebody
    runs: list[str]
    postgres: Postgres
    records: PostgresArchiveRecords
    folder: Path
    admin: asyncpg.Connection

    def archiver(self, objects: Objects | None = None, age_s: int = 0, **changes: int) -> Archiver:
        """Takes every finished run, whatever its age."""
        limits = ArchiveLimits(url=str(self.folder), classes=only_default(age_s), **changes)
        return archiver_of(self.postgres, self.folder, limits, objects)

    async def events(self, run_id: str) -> int:
        """Events of the run in the log."""
        return int(await self.admin.fetchval("SELECT count(*) FROM runtime.events WHERE run_id = $1", run_id))

    def objects(self) -> list[Path]:
        """Files of the archive."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@asynccontextmanager
async def archive_rig(database: Database, folder: Path) -> AsyncIterator[Rig]:
    who = somebody()
    settings = runtime_settings(
        database,
        archive=ArchiveSettings(url=str(folder / "archive")),
        replay=ReplaySettings(cache_bytes=0),
        tail=TailSettings(ring_entries=1),
    )
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(replica(settings, who.key))
        postgres = await stack.enter_async_context(postgres_of(database.runtime, "archiver"))
        admin = await asyncpg.connect(database.admin)
        stack.push_async_callback(admin.close)
        runs = await finished_runs(runtime, who, *OUTPUTS)
        yield Rig(runtime, who, runs, postgres, PostgresArchiveRecords(postgres), folder / "archive", admin)
