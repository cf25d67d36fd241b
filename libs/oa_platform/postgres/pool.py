"""A service's pool of database connections, and the current problems of the database.

    postgres = await process.enter(Postgres(settings.database, "runtime"))
    process.readiness.add("postgres", postgres.check)

    async with postgres.transaction() as connection:
        await connection.execute(...)

Any failure of the connection is raised as a Refusal (unavailable, deadline_exceeded). When the database dies and comes
back, the next call reconnects. Errors of SQL itself are raised as they are, because they are decisions or defects of
the store.

Every connection leads to a server that takes writes and keeps them (`servers`). When an error shows that the server is
no longer the same, all connections are given up, and new ones find the current server. Where nothing is written, a
periodic check finds out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import structlog

from oa_base.refusal import Refusal
from oa_platform.config.dsn import database_location
from oa_platform.config.shared import DatabaseSettings
from oa_platform.health.failures import DATABASE_CHANGED, DATABASE_DAMAGED, DATABASE_FULL, RETRY_AFTER_MS, refusal_of
from oa_platform.postgres.at_start import waiting_for_database
from oa_platform.postgres.facts import UnusableServer, is_tight, no_room
from oa_platform.postgres.servers import (
    BROKEN,
    SESSION,
    RawConnection,
    Target,
    ask,
    open_connection,
    patiently,
    refusing_start,
    require,
)
from oa_platform.postgres.silence import Silence
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tasks.fair_slots import FairSlots, for_whom
from oa_platform.telemetry import metrics

if TYPE_CHECKING:
    # Generic in the type stubs only.
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

OnConnect = Callable[[RawConnection], Awaitable[None]]
"""Receives a connection that was just made and that nobody has used. If it raises, the connection is not used."""
_log = structlog.get_logger(__name__)
PLANNING = {"enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan"}
"""How statements are planned: once for a connection, whatever their arguments are. By itself, the server plans some of
them anew each time, among them the one that stores a batch of the log, which took longer than to carry it out. A plan
is kept while its tables grow, until they are analyzed: one that was made for a small table, and reads all of it, would
take longer with each row. Where a table has to be read as a whole, servers before PostgreSQL 18 take that for so
expensive that they would compile the plan."""
_CLOSE_TIMEOUT_S = 3.0
_IDLE_LIFETIME_S = 300.0


class Postgres:
    """A pool; an async context manager."""

    def __init__(self, settings: DatabaseSettings, application_name: str) -> None:
        self._settings = settings
        self._target = target_of(settings, application_name)
        self._pool: Pool | None = None
        self._on_connect: list[OnConnect] = []
        self._slots = FairSlots(settings.pool_max)
        """One for each connection that the pool may have. Orgs that wait get them in turn."""
        self._full_until = 0.0
        self._usable = metrics.DATABASE_USABLE.labels(application_name)
        self._watching: asyncio.Task[None] | None = None
        self.silence = Silence(settings.silent_s, time.monotonic())
        """Whether the database is silent towards this process."""
        self.generation = 0
        """Changes when all existing connections are given up."""

    @property
    def may_lose_commits(self) -> bool:
        """Whether the server may lose what it has acknowledged."""
        return self._settings.may_lose_commits

    def on_connect(self, hook: OnConnect) -> None:
        """Call `hook` with every connection that is made from now on, before anybody else gets it."""
        self._on_connect.append(hook)

    async def __aenter__(self) -> Self:
        """Connect, waiting for the database up to `start_timeout_s`; raises Refusal unavailable, invalid_setting."""
        dsn = self._target.dsn
        with refusing_start(dsn, "OA_DATABASE_URL"), waiting_for_database(dsn) as on_wait:
            self._pool = await patiently(self._create_pool, self._settings.start_timeout_s, on_wait)
        self._usable.set(1)
        self.silence.answered(time.monotonic())
        self._watching = asyncio.create_task(self._watch(), name="postgres-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool = self._pool
        if pool is None:
            return
        if self._watching is not None:
            await cancel_and_wait(self._watching)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await pool.close()
        except (TimeoutError, *BROKEN):
            pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises Refusal for anything that is wrong with it, inside the block too."""
        await self._wait_for_turn()
        try:
            connection = await self._acquired()
            try:
                yield connection
            except BROKEN as error:
                await self._learn(error)  # first, so that the connection is closed when it is given back
                raise
            else:
                self.silence.answered(time.monotonic())
            finally:
                await self._open_pool().release(connection)
        except BROKEN as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            why = str(error) if isinstance(error, (UnusableServer, *DATABASE_DAMAGED)) else ""
            _log.warning("database_failed", error=type(error).__name__, reason=refusal.reason, why=why)
            raise refusal from error
        finally:
            self._slots.give_back()

    async def _wait_for_turn(self) -> None:
        """Wait until a connection is free for those for whom the current code works, who have to give its slot back."""
        if self._slots.take_now():
            return
        try:
            async with asyncio.timeout(self._settings.acquire_timeout_s):
                await self._slots.take(for_whom())
        except TimeoutError:
            raise _none_free() from None

    async def _acquired(self) -> Connection:
        try:
            return await self._open_pool().acquire(timeout=self._settings.acquire_timeout_s)
        except TimeoutError:
            raise _none_free() from None
        except ConnectionError:
            raise
        except OSError as error:  # no route, no such name, no descriptor left
            raise ConnectionError(str(error)) from error

    async def _learn(self, error: BaseException) -> None:
        """Act on what an error says about the server, beyond the one connection on which it occurred."""
        if isinstance(error, DATABASE_CHANGED):
            await self.expire()
        if isinstance(error, DATABASE_FULL):
            self._full_until = asyncio.get_running_loop().time() + self._settings.no_room_s

    async def expire(self) -> None:
        """Give up all connections: free ones now, those in use when they are given back."""
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
            # Other callers are told that the database can't be reached; readiness tells operators more.
            if isinstance(refusal.__cause__, UnusableServer):
                raise refusal.__cause__.refusal from None
            raise
        if asyncio.get_running_loop().time() < self._full_until:
            text = "the database could not store something a moment ago; see whether its disk is full or broken"
            raise Refusal("unavailable", text, field="OA_DATABASE_URL")

    async def _watch(self) -> None:
        """Check now and then, so that a change of the server is noticed where nothing is written."""
        usable = True
        while True:
            await asyncio.sleep(self._settings.watch_ms / 1000)
            why = await self._look_again()
            self._usable.set(0 if why else 1)
            if why and usable:
                _log.warning("database_unusable", why=why)
            elif not why and not usable:
                _log.info("database_usable")
            usable = not why

    async def _look_again(self) -> str:
        """What a check complains of; empty if nothing. A check without an answer counts as failed before it ends."""
        look = asyncio.create_task(self._complaint(), name="postgres-look")
        try:
            # It may hang for longer than its own time limits: a connection that is given up waits for its server.
            while not (await asyncio.wait({look}, timeout=self._settings.silent_s))[0]:
                self.silence.failed(time.monotonic())
            why = look.result()
        finally:
            await cancel_and_wait(look)
        if why:
            self.silence.failed(time.monotonic())
        return why

    async def _complaint(self) -> str:
        try:
            await self.check()
        except Refusal as refusal:
            return str(refusal)
        except Exception as error:  # noqa: BLE001 - a look that breaks must not end all looks
            return type(error).__name__
        return ""

    async def _look(self) -> None:
        """Check once, before there is a pool, whether it fits; log what operators should know."""
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


def _none_free() -> Refusal:
    message = "no database connection became free in time; try again"
    return Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS)


async def _keep(_connection: RawConnection) -> None:
    """Reset nothing: no session has settings of its own, so giving a connection back costs no round trip. asyncpg ends
    an open transaction before it calls this."""


def session_settings(settings: DatabaseSettings, application_name: str) -> dict[str, str]:
    """The settings that every connection sends to the server at its start."""
    return {
        **SESSION,
        **PLANNING,
        "application_name": application_name,
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_transaction_timeout_ms),
    }


def target_of(settings: DatabaseSettings, application_name: str) -> Target:
    """The target that the settings describe, for a connection of the pool or outside of it."""
    arguments = {
        # The server gives up first; this is for a server that doesn't answer any more.
        "command_timeout": settings.statement_timeout_ms / 1000 + 1,
        "server_settings": session_settings(settings, application_name),
    }
    return Target(settings.url.reveal(), settings.connect_timeout_s, settings.may_lose_commits, arguments)
