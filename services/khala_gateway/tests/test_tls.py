"""Khala's port with a certificate: real handshakes, delivery, and a new certificate while connections stay."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_platform.config.parsers import Address
from oa_platform.config.shared import EdgeTlsSettings, TlsSettings
from oa_platform.system.clock import SystemClock
from oa_platform.tls.protection import edge_protection
from oa_testing.peers.authority import Authority
from oa_testing.waiting import PATIENCE_S, eventually
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.tests.harness import Client, Limits, Stack, T, running

AUTHORITY, FOREIGN = Authority(), Authority("Another authority")


async def _connect(stack: Stack, *authorities: Authority) -> Client:
    trust = ssl.create_default_context()
    for authority in authorities:
        trust.load_verify_locations(cadata=authority.certificate.decode())
    client = await Client.open(stack.url.replace("ws://", "wss://"), ssl=trust)
    await client.hello(stack.token(T))
    await client.next(frames.Welcome)
    return client


async def test_a_topic_is_followed_by_wss_while_the_certificate_changes(tmp_path: Path) -> None:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    settings = EdgeTlsSettings(cert_file=cert_file, key_file=key_file, reload_interval_ms=3_600_000)
    async with (
        edge_protection(settings, TlsSettings(), SystemClock()) as edge,
        running(protection=edge) as stack,
    ):
        first = await _connect(stack, AUTHORITY)
        await first.follow(T)
        FOREIGN.issue().write(tmp_path)
        assert edge.certificates
        await edge.certificates.look()
        second = await _connect(stack, FOREIGN)
        await second.follow(T)
        assert first.seqs[T] == second.seqs[T] == list(range(1, 11))
        stack.runtime.append(T, 5)
        await first.until_up_to(T, 15)  # on the connection that was there before
        with pytest.raises(ssl.SSLCertVerificationError):
            await _connect(stack, AUTHORITY)


async def test_who_never_shakes_hands_is_let_go(tmp_path: Path) -> None:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    async with (
        edge_protection(EdgeTlsSettings(cert_file=cert_file, key_file=key_file), TlsSettings(), SystemClock()) as edge,
        running(Limits().with_socket(handshake_deadline_ms=100), protection=edge) as stack,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.server.port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()


async def test_connections_of_an_address_count_before_they_shake_hands(tmp_path: Path) -> None:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    limits = Limits().with_socket(handshake_deadline_ms=600_000).with_port(max_handshakes_of_network=2)
    async with (
        edge_protection(EdgeTlsSettings(cert_file=cert_file, key_file=key_file), TlsSettings(), SystemClock()) as edge,
        running(limits, protection=edge) as stack,
    ):
        held = [await asyncio.open_connection("127.0.0.1", stack.server.port) for _ in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await held[2][0].read() == b"", "one too many is closed at once"
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"])
async def test_nothing_is_kept_of_who_shakes_no_hands(tmp_path: Path, said: bytes) -> None:
    """A check of a load balancer, which only connects, and a client that speaks without TLS."""
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    async with (
        edge_protection(EdgeTlsSettings(cert_file=cert_file, key_file=key_file), TlsSettings(), SystemClock()) as edge,
        running(protection=edge) as stack,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.server.port)
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
        writer.close()
        client = await _connect(stack, AUTHORITY)
        assert [socket.connection is not None for socket in stack.server.sockets] == [True]
        await client.socket.close()
        await eventually(lambda: not stack.server.sockets)


async def test_khala_elsewhere_without_a_certificate_is_refused() -> None:
    async with running() as stack:
        inside = stack.server
        server = WebSocketServer(Address("0.0.0.0", 0), inside._dependencies, inside._admission, stack.limits.port)
        with pytest.raises(Refusal, match=r"OA_WS_ADDRESS is 0\.0\.0\.0:0"):
            async with server:
                pass
