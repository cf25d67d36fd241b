"""The pool of database connections of a service, and what is wrong with the database at the moment.

    postgres = await process.enter(Postgres(settings.database, "runtime"))
    process.readiness.add("postgres", postgres.check)

    async with postgres.transaction() as connection:
        await connection.execute(...)

Whatever goes wrong with the connection leaves as a Refusal (unavailable, deadline_exceeded); a database that dies and
comes back is reconnected to by the next call. Errors of SQL itself leave as they are: they are decisions or defects of
the store.

Every connection is one to a server that takes writes and keeps them (`servers`). When an error shows that the server is
another one than it was, all connections are given up, and new ones find the server of now. Where nothing is written, a
look now and then finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import structlog

from oa_base.refusal import Refusal
from oa_platform.config.dsn import database_location
from oa_platform.config.shared import DatabaseSettings
from oa_platform.health.failures import DATABASE_CHANGED, DATABASE_FULL, RETRY_AFTER_MS, refusal_of
from oa_platform.postgres.facts import UnusableServer, is_tight, no_room
from oa_platform.postgres.servers import (
    BROKEN,
    RawConnection,
    Target,
    ask,
    open_connection,
    patiently,
    refusing_start,
    require,
)
from oa_platform.telemetry import metrics

if TYPE_CHECKING:
    # Generic in the type stubs only.
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

OnConnect = Callable[[RawConnection], Awaitable[None]]
"""Gets a connection that was just made and that nobody has used; what it raises keeps it from being used."""
_log = structlog.get_logger(__name__)
_CLOSE_TIMEOUT_S = 3.0
_IDLE_LIFETIME_S = 300.0


class Postgres:
    """A pool; an async context manager."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        self._settings = settings
        self._target = target_of(settings, application_name)
        self._pool: Pool | None = None
        self._on_connect: list[OnConnect] = []
        self._full_until = 0.0
        self._usable = metrics.DATABASE_USABLE.labels(application_name)
        self._watching: asyncio.Task[None] | None = None
        self.generation = 0
        """Changes when all connections that there are were given up."""

    @property
    def may_lose_commits(self) -> bool:
        """Whether the server may lose what it has acknowledged."""
        return self._settings.may_lose_commits

    def on_connect(self, hook: OnConnect) -> None:
        """Call `hook` with every connection that is made from now on, before anybody else gets it."""
        self._on_connect.append(hook)

    async def __aenter__(self) -> Self:
        """Connect, waiting for the database up to `start_timeout_s`; Refusal unavailable or invalid_setting."""
        with refusing_start(self._target.dsn, "OA_DATABASE_URL"):
            self._pool = await patiently(self._create_pool, self._settings.start_timeout_s)
        self._usable.set(1)
        self._watching = asyncio.create_task(self._watch(), name="postgres-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool = self._pool
        if pool is None:
            return
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await pool.close()
        except (TimeoutError, *BROKEN):
            pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises Refusal for anything that is wrong with it, inside the block too."""
        try:
            connection = await self._acquired()
            try:
                yield connection
            except BROKEN as error:
                await self._learn(error)  # first: a connection that is given back after that is closed
                raise
            finally:
                await self._open_pool().release(connection)
        except BROKEN as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            why = str(error) if isinstance(error, UnusableServer) else ""
            _log.warning("database_failed", error=type(error).__name__, reason=refusal.reason, why=why)
            raise refusal from error

    async def _acquired(self) -> Connection:
        try:
            return await self._open_pool().acquire(timeout=self._settings.acquire_timeout_s)
        except TimeoutError:
            message = "no database connection became free in time; try again"
            raise Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS) from None
        except ConnectionError:
            raise
        except OSError as error:  # no route, no such name, no descriptor left
            raise ConnectionError(str(error)) from error

    async def _learn(self, error: BaseException) -> None:
        """What an error says of the server, beyond the one connection that met it."""
        if isinstance(error, DATABASE_CHANGED):
            await self.expire()
        if isinstance(error, DATABASE_FULL):
            self._full_until = asyncio.get_running_loop().time() + self._settings.no_room_s

    async def expire(self) -> None:
        """Give up all connections: those that are free now, those in use when they are given back."""
        self.generation += 1
        await self._open_pool().expire_connections()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on any exception."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def check(self) -> None:
        """Readiness: raises Refusal unless the database answers, takes writes and keeps them."""
        try:
            async with self.acquire() as connection:
                await require(connection, self._target)
        except Refusal as refusal:
            # To callers it is a database that can't be reached; whoever looks after it is told more.
            if isinstance(refusal.__cause__, UnusableServer):
                raise refusal.__cause__.refusal from None
            raise
        if asyncio.get_running_loop().time() < self._full_until:
            text = "the database could not store something a moment ago; see whether its disk is full or broken"
            raise Refusal("unavailable", text, field="OA_DATABASE_URL")

    async def _watch(self) -> None:
        """Look now and then, so that a server that changes is noticed where nothing is written."""
        usable = True
        while True:
            await asyncio.sleep(self._settings.watch_ms / 1000)
            why = await self._complaint()
            self._usable.set(0 if why else 1)
            if why and usable:
                _log.warning("database_unusable", why=why)
            elif not why and not usable:
                _log.info("database_usable")
            usable = not why

    async def _complaint(self) -> str:
        try:
            await self.check()
        except Refusal as refusal:
            return str(refusal)
        except Exception as error:  # noqa: BLE001 - a look that breaks must not end all looks
            return type(error).__name__
        return ""

    async def _look(self) -> None:
        """What is asked once, before there is a pool: whether it fits, and what somebody should know."""
        connection = await open_connection(self._target)
        try:
            facts = await ask(connection)
        finally:
            await connection.close()
        pool_max = self._settings.pool_max
        error = no_room(facts, database_location(self._target.dsn), pool_max)
        if error is not None:
            raise error
        if is_tight(facts, pool_max):
            _log.warning("database_connections_tight", allowed=facts.room, pool_max=pool_max)
        if facts.off:
            _log.warning("database_may_lose_commits", off=list(facts.off), allowed_by="OA_DATABASE_MAY_LOSE_COMMITS")

    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("the pool is not open: enter it first")
        return self._pool

    async def _create_pool(self) -> Pool:
        await self._look()
        settings = self._settings
        return await asyncpg.create_pool(
            connect=self._connect,
            min_size=min(settings.pool_min, settings.pool_max),
            max_size=settings.pool_max,
            max_inactive_connection_lifetime=_IDLE_LIFETIME_S,
            reset=_keep,
        )

    async def _connect(self, *_: Any, **__: Any) -> RawConnection:
        connection = await open_connection(self._target)
        try:
            for hook in self._on_connect:
                await hook(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _keep(_connection: RawConnection) -> None:
    """Nothing is set for a session here, so giving a connection back costs no round trip; asyncpg ends an open
    transaction before it calls this."""


def session_settings(settings: DatabaseSettings, application_name: str) -> dict[str, str]:
    """What every connection tells the server at its start."""
    return {
        "application_name": application_name,
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_transaction_timeout_ms),
        "timezone": "UTC",
    }


def target_of(settings: DatabaseSettings, application_name: str) -> Target:
    """What the settings want, for a connection of the pool or outside of it."""
    arguments = {
        # The server gives up first; this is for a server that doesn't answer any more.
        "command_timeout": settings.statement_timeout_ms / 1000 + 1,
        "server_settings": session_settings(settings, application_name),
    }
    return Target(settings.url.reveal(), settings.connect_timeout_s, settings.may_lose_commits, arguments)
