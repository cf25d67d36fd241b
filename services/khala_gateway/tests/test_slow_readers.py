"""Clients that read slowly, and clients that stop: what is taken decides, not what is left."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

import pytest
import structlog
import uvloop

from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.wire import decode_server_frame, encode_client_frame
from oa_testing.waiting import PATIENCE_S, eventually
from services.khala_gateway.admission.domain import PATH
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.feeds.domain import binary_message
from services.khala_gateway.tests.harness import Limits, Stack, T, U, running

SLOW_MS = 4_000
# A small system buffer, so that what is not read soon waits at the gateway.
RECEIVE_BUFFER = 4_096
LIMITS = (
    Limits()
    .with_session(slow_consumer_ms=SLOW_MS, idle_timeout_ms=SLOW_MS)
    .with_socket(
        write_high_bytes=64 * 1024, write_low_bytes=1024, linger_ms=120_000, close_timeout_ms=200, answers_bytes=200
    )
)
CLOSE = 0x88
Run = Callable[[Coroutine[None, None, None]], None]
# The process runs on uvloop where that is installed.
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


class RawReader:
    """A WebSocket client that takes bytes from its socket only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()

    @classmethod
    async def follow(cls, stack: Stack) -> "RawReader":
        """A client that has subscribed to `T` and read nothing of it."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", stack.server.port))
        upgrade = (
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Protocol: {Form.PROTO.value}\r\n\r\n"
        )
        await loop.sock_sendall(sock, upgrade.encode())
        reader = cls(sock)
        while b"\r\n\r\n" not in reader._data:
            await reader.take(4_096)
        del reader._data[: reader._data.index(b"\r\n\r\n") + 4]
        await reader.send(frames.Hello(stack.token(T), "dev_1", "test/1"))
        await reader.send(frames.Subscribe(((T, None),)))
        return reader

    async def send(self, frame: frames.ClientFrame) -> None:
        """One masked message; the mask is zero."""
        message = binary_message(encode_client_frame(frame, Form.PROTO))
        header = 2 if message[1] < 126 else 4
        masked = bytes((message[0], message[1] | 0x80)) + message[2:header] + b"\0\0\0\0" + message[header:]
        await asyncio.get_running_loop().sock_sendall(self._sock, masked)

    async def take(self, count: int) -> bool:
        """Up to `count` bytes; False at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            data = await asyncio.get_running_loop().sock_recv(self._sock, count)
        self._data += data
        return bool(data)

    async def take_all(self) -> None:
        """Everything, to the end of the stream."""
        while await self.take(65_536):
            pass

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """First byte and payload of each complete message so far."""
        at = 0
        while at + 2 <= len(self._data):
            first, length, header = self._data[at], self._data[at + 1], 2
            if length == 126:
                (length,), header = struct.unpack_from("!H", self._data, at + 2), 4
            elif length == 127:
                (length,), header = struct.unpack_from("!Q", self._data, at + 2), 10
            if at + header + length > len(self._data):
                return
            yield first, bytes(self._data[at + header : at + header + length])
            at += header + length

    def frames(self) -> list[frames.ServerFrame]:
        """The frames so far."""
        return [decode_server_frame(data, Form.PROTO) for first, data in self.messages() if first != CLOSE]

    def seqs(self) -> list[int]:
        """The events so far."""
        return [frame.seq for frame in self.frames() if isinstance(frame, frames.Event)]

    def close_code(self) -> int:
        """The code of the close frame; 0 without one."""
        return next((struct.unpack_from("!H", data)[0] for first, data in self.messages() if first == CLOSE), 0)

    def close(self) -> None:
        """Let go."""
        self._sock.close()


@contextlib.asynccontextmanager
async def backlog() -> AsyncIterator[tuple[Stack, RawReader]]:
    """A gateway, and a client for which half a megabyte waits."""
    async with running(LIMITS) as stack:
        stack.runtime.append(T, 100, size=5_000)
        reader = await RawReader.follow(stack)
        try:
            yield stack, reader
        finally:
            reader.close()


@LOOPS
def test_a_slow_but_steady_reader_is_served_for_longer_than_the_limit(run: Run) -> None:
    run(_a_slow_but_steady_reader_is_served_for_longer_than_the_limit())


async def _a_slow_but_steady_reader_is_served_for_longer_than_the_limit() -> None:
    async with backlog() as (stack, reader):
        until = time.monotonic() + 3 * SLOW_MS / 1000
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            assert await reader.take(300)
        assert stack.server.sockets, "3 kB a second are progress"
        assert len(reader.seqs()) < 50, "it was behind all the time"
        while len(reader.seqs()) < 110:
            assert await reader.take(65_536)
        assert reader.seqs() == list(range(1, 111))


@LOOPS
def test_a_reader_that_stops_is_closed_and_can_read_why(run: Run) -> None:
    run(_a_reader_that_stops_is_closed_and_can_read_why())


async def _a_reader_that_stops_is_closed_and_can_read_why() -> None:
    async with backlog() as (stack, reader):
        with structlog.testing.capture_logs() as logs:
            await eventually(lambda: any(entry["event"] == "connection_closing" for entry in logs))
        await asyncio.sleep(1)  # longer than a closing handshake may take
        await reader.take_all()
        last = reader.frames()[-1]
        assert isinstance(last, frames.ErrorFrame)
        assert (last.topic, last.reason, reader.close_code()) == ("", "slow_consumer", 4008)
        assert reader.seqs() == list(range(1, len(reader.seqs()) + 1)), "nothing was left out before it"
        await eventually(lambda: not stack.server.sockets)


@LOOPS
def test_a_reader_that_never_comes_back_is_let_go_and_nothing_is_kept_for_it(run: Run) -> None:
    run(_a_reader_that_never_comes_back_is_let_go_and_nothing_is_kept_for_it())


async def _a_reader_that_never_comes_back_is_let_go_and_nothing_is_kept_for_it() -> None:
    async with running(LIMITS.with_socket(linger_ms=100)) as stack:
        stack.runtime.append(T, 100, size=5_000)
        reader = await RawReader.follow(stack)
        await eventually(lambda: len(stack.server.sockets) == 1)
        await eventually(lambda: not stack.server.sockets)
        with pytest.raises(ConnectionResetError):  # the system would have gone on to offer what it had
            await reader.take_all()
        reader.close()


@LOOPS
def test_a_slow_reader_is_heard_until_its_answers_are_too_much(run: Run) -> None:
    run(_a_slow_reader_is_heard_until_its_answers_are_too_much())


async def _a_slow_reader_is_heard_until_its_answers_are_too_much() -> None:
    async with backlog() as (stack, reader):
        held = next(iter(stack.server.sockets))
        assert held.connection is not None
        await eventually(lambda: held._read_up_to is not None)
        await reader.send(frames.Ping(7))
        await eventually(lambda: held._tcp is not None and held._tcp.is_reading())
        for nonce in range(8, 40):
            await reader.send(frames.Ping(nonce))
        await eventually(lambda: held._tcp is not None and not held._tcp.is_reading())
        while 39 not in [frame.nonce for frame in reader.frames() if isinstance(frame, frames.Heartbeat)]:
            assert await reader.take(65_536)
        assert 7 in [frame.nonce for frame in reader.frames() if isinstance(frame, frames.Heartbeat)]


async def test_a_list_is_read_for_a_slow_reader_only_once_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether the socket took nothing when the list was about to be read. The system may take a little more at any time.
    blocked: list[bool] = []
    read_snapshot = TopicSubscriber.read_snapshot

    async def noted(subscriber: TopicSubscriber, dependencies: Dependencies) -> None:
        blocked.append(held._read_up_to is not None)
        await read_snapshot(subscriber, dependencies)

    monkeypatch.setattr(TopicSubscriber, "read_snapshot", noted)
    async with running(Limits().with_socket(write_high_bytes=64 * 1024, write_low_bytes=1024)) as stack:
        stack.projector.logs[U].has_snapshot = True
        client = await stack.connect(T, U)
        await client.follow(T)
        client.socket.transport.pause_reading()
        held = next(iter(stack.server.sockets))
        async with asyncio.timeout(PATIENCE_S):
            while held._read_up_to is None:
                stack.runtime.append(T, 10, size=10_000)
                await asyncio.sleep(0.01)
        await client.subscribe(U)
        await eventually(lambda: U in stack.hub.feeds and stack.hub.feeds[U].stands)
        for _ in range(20):
            await asyncio.sleep(0.01)
        client.socket.transport.resume_reading()
        assert (await client.next(frames.Subscribed)).topic == U
        assert (await client.next(frames.Snapshot)).seq == 3
        assert blocked == [False]


@pytest.mark.parametrize("limit", ["SO_SNDBUF", "TCP_NOTSENT_LOWAT"])
async def test_what_the_system_keeps_for_a_connection_is_bounded(limit: str) -> None:
    async with running() as stack:
        await stack.connect(T)
        tcp = next(iter(stack.server.sockets))._tcp
        assert tcp is not None
        sock, limits = tcp.get_extra_info("socket"), stack.limits.port.socket
        if limit == "SO_SNDBUF":
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * limits.send_buffer_bytes
        else:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == limits.unsent_bytes
