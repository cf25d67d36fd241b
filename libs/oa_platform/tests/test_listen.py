"""Notifications arrive, and after a break the listener is told that it may have missed some."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_localstack.postgres.server import PostgresServer
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.listen import Connection, Listener
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import eventually


class Heard:
    """What a listener was told, and how often it looked."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.looks = 0

    def note(self, channel: str, payload: str) -> None:
        self.notes.append((channel, payload))

    async def look(self, connection: Connection) -> None:
        await connection.fetchval("SELECT 1")
        self.looks += 1


@asynccontextmanager
async def _listening(dsn: str, heard: Heard, statement_timeout_ms: int = 60_000) -> AsyncIterator[Listener]:
    settings = DatabaseSettings(
        url=Secret(dsn), may_lose_commits=True, connect_timeout_s=1, statement_timeout_ms=statement_timeout_ms
    )
    channels = ["one", "two"]
    listener = Listener(settings, "test", channels, on_notify=heard.note, look=heard.look, interval_s=0.2)
    task = asyncio.create_task(listener.run())
    yield listener
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _notify(dsn: str, channel: str, payload: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT pg_notify($1, $2)", channel, payload)
    await connection.close()


async def test_notifications_of_its_channels_arrive(empty_database: Database) -> None:
    heard = Heard()
    async with _listening(empty_database.runtime, heard) as listener:
        await eventually(lambda: listener.connected)
        for channel in ("one", "three", "two"):
            await _notify(empty_database.runtime, channel, f"for {channel}")
        await eventually(lambda: len(heard.notes) == 2)
        assert heard.notes == [("one", "for one"), ("two", "for two")]
        await listener.check()
        looks = heard.looks
        await eventually(lambda: heard.looks > looks)


async def test_a_killed_server_is_listened_to_again(own_postgres: PostgresServer) -> None:
    heard = Heard()
    async with _listening(own_postgres.dsn(), heard) as listener:
        await eventually(lambda: listener.connected)
        own_postgres.kill()
        await eventually(lambda: not listener.connected)
        with pytest.raises(Refusal) as caught:
            await listener.check()
        assert caught.value.reason == "unavailable"
        looks = heard.looks
        await own_postgres.start()
        await eventually(lambda: listener.connected)
        assert heard.looks > looks
        await _notify(own_postgres.dsn(), "one", "again")
        await eventually(lambda: heard.notes == [("one", "again")])


async def test_a_silent_network_is_noticed(empty_database: Database, fault_proxies: FaultProxies) -> None:
    heard = Heard()
    proxy = await fault_proxies("127.0.0.1", empty_database.port)
    dsn = empty_database.runtime.replace(f":{empty_database.port}/", f":{proxy.port}/")
    async with _listening(dsn, heard, statement_timeout_ms=500) as listener:
        await eventually(lambda: listener.connected)
        proxy.stall()
        await eventually(lambda: not listener.connected)
        proxy.resume()
        await eventually(lambda: listener.connected)
