"""Postgres notifications, for as long as the process runs.

    async def look(connection: Connection) -> None:
        for row in await connection.fetch("SELECT …"):
            tail.hint(row["partition"], row["position"])

    listener = Listener(settings.database, "runtime", ["runtime_log"], on_notify=tail.wake, look=look, interval_s=1)
    process.background("listener", listener.run())
    process.readiness.add("listener", listener.check)

A notification is a hint, never the news itself: some are lost whenever the connection breaks, and every role that may
connect to the database can send any text on any channel (`told_number` reads a number). So after each connect,
and every `interval_s` from then on, `look` reads from the tables what the hints would have said. This also shows
whether the connection is still alive, because a dead network reports nothing by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import target_of
from oa_platform.postgres.servers import open_connection, require
from oa_platform.tasks.events import until_set

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

OnNotify = Callable[[str, str], None]
"""Receives channel and payload, in the event loop; returns at once."""
Look = Callable[[Connection], Awaitable[None]]
"""Reads what may have been missed; it has the connection to itself while it runs."""
MAX_NUMBER = 2**63 - 1
"""The largest number that a column has."""
_RECONNECT = Backoff(first_ms=100, max_ms=2_000)
_log = structlog.get_logger(__name__)


def told_number(payload: str) -> int | None:
    """The number that a notification consists of; None, and a line in the log, for any other text."""
    if payload.isascii() and payload.isdecimal() and len(payload) <= len(str(MAX_NUMBER)):
        number = int(payload)
        if number <= MAX_NUMBER:
            return number
    _log.warning("strange_notification")
    return None


class Listener:
    """One connection that listens."""

    def __init__(
        self,
        settings: DatabaseSettings,
        application_name: str,
        channels: Sequence[str],
        *,
        on_notify: OnNotify,
        look: Look,
        interval_s: float,
    ) -> None:
        self._target = target_of(settings, f"{application_name}-listener")
        self._channels = tuple(channels)
        self._on_notify = on_notify
        self._look = look
        self._interval_s = interval_s
        self.connected = False
        """Whether notifications arrive, as far as is known."""

    async def check(self) -> None:
        """Readiness: raises Refusal(unavailable) while notifications don't arrive."""
        if not self.connected:
            raise Refusal("unavailable", "notifications of the database don't arrive now; wait until it is back")

    async def run(self) -> None:
        """Listen until canceled, reconnecting forever."""
        failures = 0
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                _log.warning("listener_disconnected", error=type(error).__name__, channels=list(self._channels))
            failures = 0 if self.connected else failures + 1
            self.connected = False
            # Spread, so that replicas don't return to a restarted server at the same moment; never at once.
            await asyncio.sleep(_RECONNECT.wait_ms(failures, random.uniform(0.5, 1)) / 1000)

    async def _listen(self) -> None:
        """Connect and listen until the connection breaks; returns or raises then."""
        connection = await open_connection(self._target)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel in self._channels:
                await connection.add_listener(channel, self._notified)
            while not lost.is_set():
                # A server that no longer takes writes will have no news.
                await require(connection, self._target)
                await self._look(connection)
                self.connected = True
                await until_set(lost, self._interval_s)
        finally:
            connection.terminate()

    def _notified(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._on_notify(channel, str(payload))
