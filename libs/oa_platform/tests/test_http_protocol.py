"""How our HTTP servers read requests: what belongs to which request, and what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from oa_platform.config.parsers import Address
from oa_platform.http.protocol import BoundedHttpProtocol
from oa_platform.http.server import KEEP_ALIVE_S, HttpServer
from oa_testing.waiting import PATIENCE_S, eventually

HEAD_BYTES = 1024
LARGE_BYTES = 32 << 20
"""More than the buffers of a connection hold."""
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


class Answer(NamedTuple):
    """One answer: its status, and its JSON body; empty without one."""

    status: int
    body: dict[str, Any]

    @property
    def reason(self) -> str:
        """The reason in an error."""
        return str(self.body["details"][0]["debug"]["reason"])


class Peer:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.head()).decode().lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
            body = await self._reader.readexactly(length)
        return Answer(int(lines[0].split()[1]), json.loads(body or b"{}"))

    async def head(self) -> bytes:
        """The head of an answer."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """What comes until the server ends the connection."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read()
        except ConnectionError:
            return b""

    async def goes_on_until_refused(self, data: bytes) -> None:
        """Send without end. Fails if the server takes that."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while True:
                    await self.send(data)
                    await asyncio.sleep(0)


class Server:
    """Answers /early at once and /late when told to, without a body; everything else with what came. The body of
    /begun comes when told to."""

    http: HttpServer

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.heads: list[Any] = []
        self.gave_up = asyncio.Event()
        """That the application was told that a client is gone."""
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.heads.append(scope["headers"])
        if scope["path"] == "/late":
            await self.go.wait()
        body, more = b"", scope["path"] not in ("/early", "/late")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gave_up.set()
                return
            body, more = body + message["body"], message["more_body"]
        said = {
            "path": scope["path"],
            "body": body.decode(),
            "headers": [[part.decode() for part in header] for header in scope["headers"]],
        }
        content = json.dumps(said).encode()
        if scope["path"] == "/large":
            content *= LARGE_BYTES // len(content)
        length = str(len(content)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        if scope["path"] == "/begun":
            await self.go.wait()
        await send({"type": "http.response.body", "body": content})

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Peer(reader, writer)

    async def disconnect(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(keep_alive_s: float = KEEP_ALIVE_S, **limits: Any) -> AsyncIterator[Server]:
    server = Server()
    protocol = type("Limited", (BoundedHttpProtocol,), {"max_head_bytes": HEAD_BYTES} | limits)
    address = Address("127.0.0.1", 0)
    async with HttpServer(
        server, address, variable="X", drain_s=0, keep_alive_s=keep_alive_s, protocol=protocol
    ) as http:
        server.port, server.http = http.port, http
        yield server
        await server.disconnect()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


# ------------------------------------------------------------------------------------------------- trailers


async def test_a_trailer_is_no_header(server: Server) -> None:
    peer = await server.connect()
    trailers = b"0\r\nauthorization: Bearer x\r\nx-forwarded-for: 192.0.2.1\r\nhost: y\r\n\r\n"
    await peer.send(CHUNKED % b"/" + b"2\r\nab\r\n" + trailers + GET)
    first = await peer.answer()
    assert first.body["body"] == "ab"
    assert first.body["headers"] == [["host", "x"], ["transfer-encoding", "chunked"]]
    assert (await peer.answer()).body["headers"] == [["host", "x"]]
    assert [len(head) for head in server.heads] == [2, 1]


ENDLESS = {
    "trailers": (b"0\r\n", b"x-a: " + b"b" * 100 + b"\r\n"),
    "a trailer's name": (b"0\r\n", b"x" * 100),
    "a trailer's value": (b"0\r\nx: ", b"y" * 100),
    "a chunk's extension": (b"1;", b"x" * 100),
}


@pytest.mark.parametrize(("begun", "line"), ENDLESS.values(), ids=ENDLESS)
async def test_trailers_and_extensions_have_a_limit(server: Server, begun: bytes, line: bytes) -> None:
    early = await server.connect()
    await early.send(CHUNKED % b"/early" + begun)
    assert (await early.answer()).status == 200
    await early.goes_on_until_refused(line)
    assert await early.rest() == b"", "the request has its answer, and a second one would be for another"
    waiting = await server.connect()
    await waiting.send(CHUNKED % b"/" + begun)
    await eventually(lambda: len(server.heads) == 2)
    await waiting.send(line * (2 * HEAD_BYTES // len(line)))
    answer = await waiting.answer()
    assert (answer.status, answer.reason) == (431, "request_too_large")
    assert await waiting.rest() == b""


# ------------------------------------------------------------------------------------------------- answers


class Written:
    """A transport that notes what is written to it."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_a_head_leaves_together_with_its_body() -> None:
    writes: list[bytes] = []

    def connection_made(protocol: BoundedHttpProtocol, transport: asyncio.Transport) -> None:
        BoundedHttpProtocol.connection_made(protocol, Written(transport, writes))  # type: ignore[arg-type]

    async with serving(connection_made=connection_made) as server:
        peer = await server.connect()
        await peer.send(GET + GET)
        assert ((await peer.answer()).status, (await peer.answer()).status) == (200, 200)
        assert [data.count(b"HTTP/1.1 200") for data in writes] == [1, 1]
        await peer.send(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b"content-length" in await peer.rest()
        assert len(writes) == 3


async def test_a_head_does_not_wait_for_a_body_that_comes_later(server: Server) -> None:
    peer = await server.connect()
    await peer.send(b"GET /begun HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b" 200 " in await peer.head()
    server.go.set()
    assert json.loads(await peer.rest())["path"] == "/begun"


# ------------------------------------------------------------------------------------------------- Upgrade


UPGRADE = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"foo/1, bar"])
async def test_an_upgrade_is_ignored_and_the_body_is_the_body(server: Server, protocol: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    peer = await server.connect()
    with_length = UPGRADE % (b"/length", protocol) + b"content-length: %d\r\n\r\n" % len(smuggled) + smuggled
    chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    nothing = UPGRADE % (b"/nothing", protocol) + b"\r\n"
    await peer.send(with_length + UPGRADE % (b"/chunked", protocol) + chunked + nothing + GET)
    for path, body in (("/length", smuggled), ("/chunked", smuggled), ("/nothing", b""), ("/", b"")):
        answer = await peer.answer()
        assert (answer.body["path"], answer.body["body"]) == (path, body.decode())
        upgrade = [value for name, value in answer.body["headers"] if name == "upgrade"]
        assert upgrade == ([] if path == "/" else [protocol.decode()]), "the application may refuse it"


async def test_an_upgrade_that_comes_in_drops(server: Server) -> None:
    peer = await server.connect()
    for byte in UPGRADE % (b"/", b"h2c") + b"content-length: 3\r\n\r\nabc" + GET:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await peer.answer()).body["body"] == "abc"
    assert (await peer.answer()).body["path"] == "/"


async def test_connect_is_refused(server: Server) -> None:
    peer = await server.connect()
    await peer.send(GET)
    assert (await peer.answer()).status == 200
    await peer.send(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n" + GET)
    answer = await peer.answer()
    assert (answer.status, answer.reason) == (400, "malformed_message")
    assert await peer.rest() == b""
    assert len(server.heads) == 1


# ------------------------------------------------------------------------------------------------- heads


async def test_blanks_around_a_value_are_no_part_of_it(server: Server) -> None:
    peer = await server.connect()
    await peer.send(b"GET / HTTP/1.1\r\nhost: \t x \t \r\nauthorization: Bearer T \r\nx-none:  \r\n\r\n")
    assert (await peer.answer()).body["headers"] == [["host", "x"], ["authorization", "Bearer T"], ["x-none", ""]]


async def test_a_body_does_not_count_for_the_next_head(server: Server) -> None:
    peer = await server.connect()
    large = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 17000\r\n\r\n" + b"b" * 17_000
    await peer.send(large + GET[:9])
    assert len((await peer.answer()).body["body"]) == 17_000
    await peer.send(GET[9:])
    assert (await peer.answer()).status == 200
    await peer.send(GET[:9])
    await peer.goes_on_until_refused(b"x-more: y\r\n" * 10)


async def test_an_earlier_request_gets_its_answer_first(server: Server) -> None:
    for second in (b"GET / HTTP/1.1\r\nx: " + b"y" * 2 * HEAD_BYTES, b"\x16\x03\x01 is no HTTP"):
        server.go.clear()
        peer = await server.connect()
        await peer.send(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n")
        await eventually(lambda: len(server.heads) > 0)
        server.heads.clear()
        await peer.send(second)
        await asyncio.sleep(0.05)
        server.go.set()
        assert (await peer.answer()).body["path"] == "/late"
        assert await peer.rest() == b""


async def test_a_head_that_waits_for_an_earlier_answer_is_not_too_slow() -> None:
    async with serving(head_timeout_s=0.05) as server:
        peer = await server.connect()
        await peer.send(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n" + GET[:9])
        await eventually(lambda: len(server.heads) > 0)
        await asyncio.sleep(0.2)  # longer than the limit
        server.go.set()
        assert (await peer.answer()).body["path"] == "/late"
        answer = await peer.answer()
        assert (answer.status, answer.reason) == (408, "deadline_exceeded")


# ------------------------------------------------------------------------------------------------- answered early


async def test_a_request_that_waits_to_continue_ends_its_connection(server: Server) -> None:
    expecting = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    early = await server.connect()
    await early.send(expecting % (b"/early", len(GET)))
    assert b"\r\nconnection: close\r\n" in await early.head()
    await early.send(GET)  # the body, or another request?
    await early.rest()
    assert len(server.heads) == 1
    continued = await server.connect()
    await continued.send(expecting % (b"/", 3))
    assert (await continued.head()).startswith(b"HTTP/1.1 100 ")
    await continued.send(b"abc")
    assert (await continued.answer()).body["body"] == "abc"


async def test_the_rest_of_an_answered_body_has_its_time() -> None:
    async with serving(body_timeout_s=0.2) as server:
        peer = await server.connect()
        await peer.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert (await peer.answer()).status == 200
        await peer.goes_on_until_refused(b"x")


async def test_a_body_that_comes_after_its_answer_keeps_the_connection(server: Server) -> None:
    peer = await server.connect()
    for _ in range(3):
        await peer.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        assert (await peer.answer()).status == 200
        await peer.send(b"abc")


async def test_a_connection_that_rests_is_closed_whatever_came_last() -> None:
    async with serving(keep_alive_s=0.2) as server:
        peer = await server.connect()
        await peer.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        assert (await peer.answer()).status == 200
        await peer.send(b"abc")
        assert await peer.rest() == b""
        peer = await server.connect()
        await peer.send(GET)
        assert (await peer.answer()).status == 200
        await peer.send(b"\r\n")
        assert await peer.rest() == b""


# ------------------------------------------------------------------------------------------------- refused early


class Sender:
    """A client that sends on, whatever is said to it, and reads afterwards."""

    def __init__(self, tcp: socket.socket) -> None:
        self._tcp = tcp
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._tcp, data)

    async def send_until_reset(self) -> None:
        """Send without end. Fails if the server takes that."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.send(MUCH)
                await asyncio.sleep(0)

    async def answered(self) -> None:
        """Wait until the first byte of an answer is here, and leave it there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(BlockingIOError):
                    self._tcp.recv(1, socket.MSG_PEEK)
                    return
                await asyncio.sleep(0.001)

    async def rest(self) -> bytes:
        """All that was sent, until the server says that nothing more comes."""
        read = b""
        async with asyncio.timeout(PATIENCE_S):
            while data := await self._loop.sock_recv(self._tcp, 65536):
                read += data
        return read


@asynccontextmanager
async def sending(server: Server, begun: bytes) -> AsyncIterator[Sender]:
    with socket.socket() as tcp:
        tcp.setblocking(False)
        await asyncio.get_running_loop().sock_connect(tcp, ("127.0.0.1", server.port))
        sender = Sender(tcp)
        await sender.send(begun)
        await sender.answered()
        yield sender


REFUSED_EARLY = {
    "a head that is too large": (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 2 * HEAD_BYTES, 431),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "a malformed chunk": (CHUNKED % b"/" + b"x\r\n", 400),
    "a malformed request behind another": (GET + b"hello\r\n\r\n", 200),
    "a body that nobody reads": (
        b"POST /early HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n",
        200,
    ),
}
MUCH = 16 * (b"x" * 1023 + b"\n")


@pytest.mark.parametrize(("begun", "status"), REFUSED_EARLY.values(), ids=REFUSED_EARLY)
async def test_a_client_that_still_sends_gets_the_answer(begun: bytes, status: int) -> None:
    """A client that is reset fails to send, and many then never look for what was said before (RFC 9112, 9.6)."""
    async with serving(linger_s=PATIENCE_S) as server, sending(server, begun) as sender:
        for _ in range(3):
            await sender.send(MUCH)
        answer = await sender.rest()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1


async def test_what_a_refused_client_sends_is_dropped_for_a_moment_only() -> None:
    async with serving(linger_s=0.1) as server, sending(server, b"hello\r\n\r\n") as sender:
        with pytest.raises(ConnectionError):
            await sender.send_until_reset()


async def test_further_refused_clients_are_closed_immediately() -> None:
    async with serving(linger_s=2 * PATIENCE_S, max_lingering=1) as server, sending(server, b"hello\r\n\r\n") as first:
        async with sending(server, b"hello\r\n\r\n") as second:
            with pytest.raises(ConnectionError):
                await second.send_until_reset()
        await first.send(MUCH)
        assert (await first.rest()).startswith(b"HTTP/1.1 400 ")


async def test_an_application_is_told_at_once_that_its_request_is_refused() -> None:
    begun = CHUNKED % b"/" + b"1\r\na\r\nx\r\n"
    async with serving(linger_s=2 * PATIENCE_S) as server, sending(server, begun):
        async with asyncio.timeout(PATIENCE_S):
            await server.gave_up.wait()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"], ids=["kept", "closed"])
async def test_a_client_that_takes_nothing_of_its_answer_is_given_up(last: bytes) -> None:
    lost = asyncio.Event()

    def connection_lost(connection: BoundedHttpProtocol, error: Exception | None) -> None:
        BoundedHttpProtocol.connection_lost(connection, error)
        lost.set()

    async with serving(answer_timeout_s=0.2, connection_lost=connection_lost) as server:
        with socket.socket() as peer:
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(peer, ("127.0.0.1", server.port))
            await loop.sock_sendall(peer, b"GET /large HTTP/1.1\r\nhost: x\r\n%b\r\n" % last)
            async with asyncio.timeout(PATIENCE_S):
                await lost.wait()


async def test_a_server_that_goes_away_ends_the_connections_that_are_used(server: Server) -> None:
    peer = await server.connect()
    await peer.send(GET)
    assert (await peer.answer()).status == 200
    await server.http.withdraw()
    for used in (peer, await server.connect()):
        await used.send(GET)
        assert b"\r\nconnection: close\r\n" in await used.head()
        assert await used.rest() != b""  # the body, and the end
