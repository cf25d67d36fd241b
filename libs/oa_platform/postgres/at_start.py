"""What a service does with its database at its start: it says that it waits, and checks that the migrations are there.

Apart from what the program that applies migrations imports, which writes no log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from oa_platform.config.dsn import database_location
from oa_platform.config.shared import DatabaseSettings
from oa_platform.health.start_wait import start_waits_for
from oa_platform.postgres.facts import UnusableServer
from oa_platform.postgres.migrate import check
from oa_platform.postgres.servers import OnWait

_log = structlog.get_logger(__name__)


async def check_schema(settings: DatabaseSettings, service: str, directory: Path) -> None:
    """`migrate.check`, unless OA_DATABASE_CHECK_MIGRATIONS is off."""
    if settings.check_migrations:
        dsn = settings.url.reveal()
        with waiting_for_database(dsn) as on_wait:
            await check(dsn, service, directory, settings.start_timeout_s, on_wait=on_wait)


@contextmanager
def waiting_for_database(dsn: str) -> Iterator[OnWait]:
    """A block in which the start needs this database: it logs once that it waits, and knows the latest reason."""
    where, is_logged = database_location(dsn), False
    with start_waits_for(f"the database at {where}") as wait:

        def note(error: BaseException) -> None:
            nonlocal is_logged
            wait.why = str(error) if isinstance(error, UnusableServer) else type(error).__name__
            if not is_logged:
                _log.warning("waiting_for_database", database=where, why=wait.why)
            is_logged = True

        yield note
