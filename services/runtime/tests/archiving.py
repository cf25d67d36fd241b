"""An archiver that is called by hand."""

from __future__ import annotations

from pathlib import Path

from oa_platform.postgres.pool import Postgres
from services.runtime.archive.app.archive import Archive, Objects
from services.runtime.archive.app.archiver import Archiver
from services.runtime.archive.app.artifacts import Artifacts
from services.runtime.archive.limits import ArchiveLimits, ArtifactLimits
from services.runtime.archive.store.objects import DirectoryObjects
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.log.store.reads import PostgresReads
from services.runtime.receipts.store.receipts import PostgresReceipts


def archiver_of(postgres: Postgres, folder: Path, limits: ArchiveLimits, objects: Objects | None = None) -> Archiver:
    """Archives into the folder, or whatever `objects` are."""
    objects = objects or DirectoryObjects(folder)
    records, making = PostgresArchiveRecords(postgres), ArtifactLimits()
    archive = Archive(records, objects, making.max_bytes)
    artifacts = Artifacts(PostgresReads(postgres), archive, making)
    return Archiver("rep_test", PostgresReceipts(postgres), records, objects, artifacts, archive, limits)
