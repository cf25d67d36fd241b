"""Postgres notifications, for as long as the process runs.

    listener = Listener(settings.database, "runtime", ["runtime_log"], on_notify=tail.wake, on_gap=tail.wake_all)
    process.background("listen", listener.run())

A notification is a hint, never the news itself: some are lost whenever the connection breaks. After each (re)connect
`on_gap` is called, and whoever listens reads the tables again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import structlog

from oa_platform.postgres import connection_arguments
from oa_platform.settings import DatabaseSettings

PROBE_INTERVAL_S = 5.0
"""Pause between probes of a silent connection: a dead network says nothing by itself."""
RECONNECT_MIN_S = 0.1
RECONNECT_MAX_S = 2.0
_log = structlog.get_logger(__name__)


class Listener:
    """One connection that listens. The callbacks are called in the event loop and must return at once."""

    def __init__(
        self,
        settings: DatabaseSettings,
        application_name: str,
        channels: Sequence[str],
        *,
        on_notify: Callable[[str, str], None],
        on_gap: Callable[[], None],
        probe_interval_s: float = PROBE_INTERVAL_S,
    ) -> None:
        self._arguments = connection_arguments(settings, f"{application_name}-listen")
        self._channels = tuple(channels)
        self._on_notify = on_notify
        self._on_gap = on_gap
        self._probe_interval_s = probe_interval_s
        self.connected = False
        """Whether notifications arrive now."""

    async def run(self) -> None:
        """Listen until cancelled, reconnecting for ever."""
        pause_s = RECONNECT_MIN_S
        while True:
            try:
                await self._listen_once()
                pause_s = RECONNECT_MIN_S
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("listen_failed", error=type(error).__name__, channels=list(self._channels))
            finally:
                self.connected = False
            # Spread, so that replicas don't come back to a restarted server in the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, RECONNECT_MAX_S)

    async def _listen_once(self) -> None:
        """Connect and listen until the connection breaks."""
        connection = await asyncpg.connect(**self._arguments)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel in self._channels:
                await connection.add_listener(channel, self._notified)
            self.connected = True
            self._on_gap()
            while not lost.is_set():
                try:
                    async with asyncio.timeout(self._probe_interval_s):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1", timeout=self._probe_interval_s)
        finally:
            connection.terminate()
        _log.warning("listen_connection_lost", channels=list(self._channels))

    def _notified(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._on_notify(channel, str(payload))
