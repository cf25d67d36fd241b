"""Connections to a TLS port count before they have shaken hands."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from oa_platform.config.parsers import Address
from oa_platform.config.shared import EdgeTlsSettings, TlsSettings
from oa_platform.http import tls_listener
from oa_platform.http.server import HttpServer
from oa_platform.http.tls_listener import HandshakeLimits, TlsListener
from oa_platform.system.clock import SystemClock
from oa_platform.tls.protection import Protection, edge_protection
from oa_testing.peers.authority import Authority
from oa_testing.waiting import PATIENCE_S

AUTHORITY = Authority()
LOOPBACK = "127.0.0.1"
PATIENT = 10 * PATIENCE_S


@pytest_asyncio.fixture
async def protection(tmp_path: Path) -> AsyncIterator[Protection]:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    settings = EdgeTlsSettings(cert_file=cert_file, key_file=key_file)
    async with edge_protection(settings, TlsSettings(), SystemClock()) as edge:
        yield edge


def trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=AUTHORITY.certificate.decode())
    return context


class Port:
    """A public port."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def silent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that does not shake hands."""
        return await asyncio.open_connection(LOOPBACK, self._number)

    async def answer(self) -> str:
        """The answer over a new connection."""
        async with httpx.AsyncClient(verify=trust(), trust_env=False, timeout=PATIENCE_S) as client:
            return (await client.get(f"https://localhost:{self._number}/")).text


@asynccontextmanager
async def served(protection: Protection, limits: HandshakeLimits) -> AsyncIterator[Port]:
    """A server with these limits."""

    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app, address = Starlette(routes=[Route("/", hello)]), Address(LOOPBACK, 0)
    server = HttpServer(app, address, variable="OA_HTTP_ADDRESS", protection=protection, handshakes=limits)
    async with server:
        yield Port(server.port)


async def until_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_network_has_so_many_handshakes_under_way(protection: Protection) -> None:
    async with served(protection, HandshakeLimits(max_of_network=2, deadline_s=PATIENT)) as port:
        held = [await port.silent() for _ in range(3)]
        await until_closed(held[2][0])
        with pytest.raises(httpx.ConnectError):
            await port.answer()
        held[0][1].close()  # it counts no longer
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(httpx.ConnectError):
                    for _ in range(3):  # nor does one that has shaken hands
                        assert await port.answer() == "hello"
                    break
        for _, writer in held:
            writer.close()


async def test_a_trusted_proxy_has_any_number_of_handshakes(protection: Protection) -> None:
    """Its address stands for many clients."""
    limits = HandshakeLimits(max_of_network=1, deadline_s=PATIENT, trusted=(ipaddress.ip_network("127.0.0.0/8"),))
    async with served(protection, limits) as port:
        held = [await port.silent() for _ in range(3)]
        assert await port.answer() == "hello"
        for _, writer in held:
            writer.close()


async def test_a_handshake_has_a_deadline(protection: Protection) -> None:
    async with served(protection, HandshakeLimits(deadline_s=0.1)) as port:
        reader, writer = await port.silent()
        await until_closed(reader)
        writer.close()


class Short:
    """A listener whose process has no descriptor left for the first connection."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.failed = False

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """As of a socket."""
        if self.failed:
            return self._listener.accept()
        self.failed = True
        raise OSError(errno.EMFILE, "Too many open files")

    def listen(self, backlog: int) -> None:
        """As of a socket."""
        self._listener.listen(backlog)

    def fileno(self) -> int:
        """As of a socket."""
        return self._listener.fileno()

    def close(self) -> None:
        """As of a socket."""
        self._listener.close()


async def test_a_shortage_of_descriptors_ends_nothing(protection: Protection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_listener, "_SHORTAGE_PAUSE_S", 0.05)
    plain = socket.create_server((LOOPBACK, 0))
    plain.setblocking(False)
    listener = Short(plain)
    assert protection.certificates
    accepting = TlsListener(
        listener,  # type: ignore[arg-type]
        asyncio.Protocol,
        protection.certificates,
        HandshakeLimits(),
        "http",
    )
    async with asyncio.timeout(PATIENCE_S):
        _, writer = await asyncio.open_connection(
            LOOPBACK, plain.getsockname()[1], ssl=trust(), server_hostname="localhost"
        )
    assert listener.failed
    writer.close()
    accepting.close()
    await accepting.wait_closed()


@pytest.mark.parametrize("begun", [False, True])
async def test_what_has_not_shaken_hands_ends_with_the_port(protection: Protection, begun: bool) -> None:
    async with served(protection, HandshakeLimits(deadline_s=PATIENT)) as port:
        reader, writer = await port.silent()
        if begun:
            assert await port.answer() == "hello"  # later than the silent one
    await until_closed(reader)
    writer.close()
