"""The pool of database connections of a service, and notifications.

    postgres = await process.enter(Postgres(settings.database, "runtime"))
    process.readiness.add("postgres", postgres.check)

    async with postgres.transaction() as connection:
        await connection.execute(...)

Whatever goes wrong with the connection leaves as a Refusal (unavailable, deadline_exceeded); a database that dies and
comes back is reconnected to by the next call. Errors of SQL itself leave as they are: they are decisions or defects of
the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import asyncpg
import structlog

from oa_errors import Refusal
from oa_platform.failures import RETRY_AFTER_MS, refusal_of
from oa_platform.settings import DatabaseSettings

if TYPE_CHECKING:
    # Generic in the type stubs only.
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

_log = structlog.get_logger(__name__)
_START_RETRY_S = 0.2
_CLOSE_TIMEOUT_S = 3.0
_IDLE_LIFETIME_S = 300.0
# What may be wrong while a server starts, or for good; a start waits for it all the same.
_NOT_THERE = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.exceptions.CannotConnectNowError)
# These don't heal by waiting.
_MISCONFIGURED = (
    asyncpg.exceptions.InvalidPasswordError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InsufficientPrivilegeError,
)


class Postgres:
    """A pool; an async context manager."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        self._settings = settings
        self._name = application_name
        self._pool: Pool | None = None

    async def __aenter__(self) -> Self:
        """Connect, waiting for the database up to `start_timeout_s`; Refusal unavailable or invalid_setting."""
        deadline = asyncio.get_running_loop().time() + self._settings.start_timeout_s
        while self._pool is None:
            try:
                self._pool = await self._create_pool()
            except _MISCONFIGURED as error:
                raise self._refused(error) from None
            except _NOT_THERE as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise self._unreachable(error) from None
                await asyncio.sleep(_START_RETRY_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool = self._pool
        if pool is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await pool.close()
        except (TimeoutError, *_NOT_THERE):
            pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises Refusal for anything that is wrong with it, inside the block too."""
        try:
            connection = await self._acquired()
            try:
                yield connection
            finally:
                await self._open_pool().release(connection)
        # An InternalClientError is neither of asyncpg's other two: a connection that died between two messages.
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            _log.warning("database_failed", error=type(error).__name__, reason=refusal.reason)
            raise refusal from error

    async def _acquired(self) -> Connection:
        try:
            return await self._open_pool().acquire(timeout=self._settings.acquire_timeout_s)
        except TimeoutError:
            message = "No database connection came free in time. Try again."
            raise Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on any exception."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def check(self) -> None:
        """Readiness: raises Refusal unless the database answers."""
        async with self.acquire() as connection:
            await connection.execute("SELECT 1")

    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("the pool is not open: enter it first")
        return self._pool

    async def _create_pool(self) -> Pool:
        settings = self._settings
        return await asyncpg.create_pool(
            settings.url.reveal(),
            min_size=min(settings.pool_min, settings.pool_max),
            max_size=settings.pool_max,
            timeout=settings.connect_timeout_s,
            # The server gives up first; this is for a server that doesn't answer any more.
            command_timeout=settings.statement_timeout_ms / 1000 + 1,
            max_inactive_connection_lifetime=_IDLE_LIFETIME_S,
            server_settings=session_settings(settings, self._name),
        )

    def _unreachable(self, error: BaseException) -> Refusal:
        where = database_location(self._settings.url.reveal())
        message = (
            f"The database at {where} can't be reached ({type(error).__name__}). OA_DATABASE_URL says where it is."
        )
        return Refusal("unavailable", message, field="OA_DATABASE_URL")

    def _refused(self, error: BaseException) -> Refusal:
        where = database_location(self._settings.url.reveal())
        message = f"The database at {where} refuses the role in OA_DATABASE_URL ({type(error).__name__})."
        return Refusal("invalid_setting", message, field="OA_DATABASE_URL")


def session_settings(settings: DatabaseSettings, application_name: str) -> dict[str, str]:
    """What every connection tells the server at its start."""
    return {
        "application_name": application_name,
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_transaction_timeout_ms),
        "timezone": "UTC",
    }


def database_location(url: str) -> str:
    """Host, port and name of the database, without user and password: for messages."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"


def connection_arguments(settings: DatabaseSettings, application_name: str) -> dict[str, Any]:
    """Arguments of `asyncpg.connect` for a connection outside of the pool."""
    return {
        "dsn": settings.url.reveal(),
        "timeout": settings.connect_timeout_s,
        "command_timeout": settings.statement_timeout_ms / 1000 + 1,
        "server_settings": session_settings(settings, application_name),
    }
