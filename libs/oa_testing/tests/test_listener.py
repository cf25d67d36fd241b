"""Whatever a test does with a listener, nothing of it is open afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter

import pytest

from oa_localstack.installation.ports import HOST
from oa_testing.peers.forwarding import both_ways, connected, forward
from oa_testing.peers.listener import Listener
from oa_testing.waiting import PATIENCE_S, eventually


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    await forward(reader, writer)


async def test_what_is_served_is_said_to_its_end_and_closed() -> None:
    async with Listener(echo) as listener, connected(HOST, listener.port) as (reader, writer):
        sent = bytes(1 << 20)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == sent


async def test_it_ends_with_connections_that_are_served_and_some_that_nobody_has_looked_at() -> None:
    served = asyncio.Event()

    async def serve(_reader: StreamReader, _writer: StreamWriter) -> None:
        served.set()
        await asyncio.Event().wait()

    accepted: list[StreamWriter] = []
    listener = Listener(serve)
    accept = listener._accept

    def seen(reader: StreamReader, writer: StreamWriter) -> None:
        accepted.append(writer)
        accept(reader, writer)
        if len(accepted) > 1:  # at once: its task has not begun
            for task in listener._open:
                task.cancel()

    listener._accept = seen  # type: ignore[method-assign]
    async with listener, connected(HOST, listener.port) as (first, _):
        await served.wait()
        async with connected(HOST, listener.port) as (second, _), asyncio.timeout(PATIENCE_S):
            assert (await first.read(), await second.read()) == (b"", b"")
    await eventually(lambda: all(writer.transport.get_extra_info("socket").fileno() == -1 for writer in accepted))
    assert len(accepted) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_comes_as_it_ends_is_ended_too(turns: int) -> None:
    """However far asyncio has come with it: taken from the system, made a transport of, told of, served."""
    listener = Listener(echo)
    await listener.start()
    with socket.create_connection((HOST, listener.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.stop()
        client.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def test_a_broken_connection_is_no_failure_and_a_handler_that_fails_is_one() -> None:
    async def breaks(reader: StreamReader, _writer: StreamWriter) -> None:
        await reader.readexactly(2)

    async with Listener(breaks) as listener, connected(HOST, listener.port) as (reader, writer):
        writer.write(b"x")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""

    async def fails(_reader: StreamReader, _writer: StreamWriter) -> None:
        raise AssertionError("it was asked too often")

    listener = Listener(fails)
    await listener.start()
    async with connected(HOST, listener.port) as (reader, _), asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    with pytest.raises(AssertionError, match="too often"):
        await listener.stop()


async def test_a_direction_that_fails_ends_the_other() -> None:
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await both_ways(waits(), fails())
    assert ended.is_set()


async def test_it_listens_again_where_it_was() -> None:
    async with Listener(echo) as first:
        pass
    async with Listener(echo, port=first.port) as again, connected(HOST, again.port):
        assert again.port == first.port
