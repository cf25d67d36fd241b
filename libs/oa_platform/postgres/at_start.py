"""What a service does with its database at its start: it says that it waits, and checks that the migrations are there.

Apart from what the program that applies migrations imports, which writes no log.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from oa_platform.config.dsn import database_location
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.facts import UnusableServer
from oa_platform.postgres.migrate import check
from oa_platform.postgres.servers import OnWait

_log = structlog.get_logger(__name__)


async def check_schema(settings: DatabaseSettings, service: str, directory: Path) -> None:
    """`migrate.check`, unless OA_DATABASE_CHECK_MIGRATIONS is off."""
    if settings.check_migrations:
        dsn = settings.url.reveal()
        await check(dsn, service, directory, settings.start_timeout_s, on_wait=log_wait(dsn))


def log_wait(dsn: str) -> OnWait:
    """Log which database the service waits for, and why."""

    def log(error: BaseException) -> None:
        why = str(error) if isinstance(error, UnusableServer) else type(error).__name__
        _log.warning("waiting_for_database", database=database_location(dsn), why=why)

    return log
