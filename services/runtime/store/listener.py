"""Word of what other replicas stored: a connection that listens, and looks at the heads now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from oa_errors import Refusal
from oa_platform.postgres import connection_arguments
from oa_platform.settings import DatabaseSettings
from services.runtime.store import sql
from services.runtime.store.log import LOG_CHANNEL

_log = structlog.get_logger(__name__)
_RECONNECT_S = 0.25
_OWN_GRACE_S = 0.05
"""Own commits are followed without a word; this is for one whose answer got lost, so its word can wait."""
Hint = Callable[[int, int], None]
"""Takes a partition and a position that it has come to."""


class Listener:
    """Calls `hint` for every partition that has grown. `run` goes on until cancelled, whatever the connection does."""

    def __init__(self, settings: DatabaseSettings, replica_id: str, hint: Hint, poll_interval_s: float) -> None:
        self._settings = settings
        self._replica_id = replica_id
        self._hint = hint
        self._poll_interval_s = poll_interval_s
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Listen, and connect again whenever the connection breaks."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("listener_disconnected", error=type(error).__name__)
            finally:
                self.connected.clear()
            await asyncio.sleep(_RECONNECT_S)

    async def check(self) -> None:
        """Readiness: raises Refusal unless word of other replicas can come."""
        if not self.connected.is_set():
            raise Refusal("unavailable", "the log's listener is not connected")

    async def _listen(self) -> None:
        connection = await asyncpg.connect(**connection_arguments(self._settings, "runtime-listener"))
        try:
            await connection.add_listener(LOG_CHANNEL, self._notified)
            while True:
                # Also what was stored while nobody listened, and a test of whether the connection lives.
                for row in await connection.fetch(sql.READ_HEADS):
                    self._hint(row["partition"], row["position"])
                self.connected.set()
                await asyncio.sleep(self._poll_interval_s)
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1)

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        try:
            replica_id, partition, position = str(payload).split(" ")
            place = int(partition), int(position)
        except ValueError:
            _log.warning("strange_notification")
            return
        if replica_id == self._replica_id:
            asyncio.get_running_loop().call_later(_OWN_GRACE_S, self._hint, *place)
        else:
            self._hint(*place)
