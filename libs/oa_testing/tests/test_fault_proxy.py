"""The fault proxy breaks what it is told to break, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from oa_testing.peers.fault_proxy import Direction, FaultProxy
from oa_testing.peers.listener import Listener
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import eventually


@pytest_asyncio.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()

    async with Listener(echo) as server:
        yield server.port


async def test_bytes_pass_unchanged_and_the_farewell_too(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    sent = bytes(range(256)) * 4000
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def send() -> None:
        writer.write(sent)
        await writer.drain()
        writer.write_eof()

    _, received = await asyncio.gather(send(), reader.read(-1))

    assert received == sent
    writer.close()


async def test_cut_resets_open_connections_and_takes_new_ones(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a")
    assert await reader.readexactly(1) == b"a"

    assert await proxy.cut() == 1

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert proxy.open_connections == 0
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"b")
    assert await reader.readexactly(1) == b"b"
    writer.close()


async def test_a_stalled_connection_stays_open_and_loses_nothing(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.stall(Direction.TO_CLIENT)
    writer.write(b"held")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    proxy.resume()

    assert await reader.readexactly(4) == b"held"
    writer.close()


async def test_truncate_cuts_in_the_middle(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    proxy.truncate(after_bytes=3)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"abcdef")

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(6)
    assert proxy.forwarded_bytes[Direction.TO_CLIENT] == 3
    writer.close()


class Full:
    """A connection that takes what is written, and is full until `has_room`."""

    def __init__(self) -> None:
        self.written = b""
        self.has_room = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take the data."""
        self.written += data

    async def drain(self) -> None:
        """Wait for room."""
        await self.has_room.wait()

    def write_eof(self) -> None:
        """Do nothing."""


async def test_truncate_cuts_one_connection_and_takes_nothing_from_others() -> None:
    """Also when several are full at that moment: a server would wait for the rest of a request without an end."""
    proxy = FaultProxy("127.0.0.1", 0)
    proxy.truncate(10, Direction.TO_SERVER)
    pumps, ends = [], [Full(), Full()]
    for end in ends:
        reader = asyncio.StreamReader()
        reader.feed_data(bytes(16))
        reader.feed_eof()
        pumps.append(asyncio.create_task(proxy._pump(Direction.TO_SERVER, reader, cast("Any", end))))
    await eventually(lambda: all(end.written for end in ends))
    for end in ends:
        end.has_room.set()
    outcomes = await asyncio.gather(*pumps, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionResetError, type(None)]
    assert [len(end.written) for end in ends] == [10, 16]


async def test_delay_holds_back_and_keeps_order(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    proxy.delay(0.05, Direction.TO_SERVER)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    before = asyncio.get_running_loop().time()
    writer.write(b"1")
    await writer.drain()
    writer.write(b"2")

    assert await reader.readexactly(2) == b"12"
    assert asyncio.get_running_loop().time() - before >= 0.05
    writer.close()


async def test_refuse_resets_new_connections(fault_proxies: FaultProxies, echo_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", echo_port)
    proxy.refuse()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_a_dead_server_looks_like_a_reset(fault_proxies: FaultProxies, unused_tcp_port: int) -> None:
    proxy = await fault_proxies("127.0.0.1", unused_tcp_port)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
