"""A connection of which every byte is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import socket


async def raw_answer(host: str, port: int, *parts: bytes, pause_s: float = 0.0, from_address: str = "") -> bytes:
    """Send `parts`, and return what came until the other side ended the connection, in whatever way.

    A server that closes with bytes unread resets the connection behind its answer. Whether bytes are unread depends on
    how fast both are, and asyncio's streams throw away what came before a reset.
    """
    loop, said = asyncio.get_running_loop(), bytearray()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.bind((from_address, 0))
        await loop.sock_connect(connection, (host, port))
        with contextlib.suppress(ConnectionError):
            for part in parts:
                await loop.sock_sendall(connection, part)
                await asyncio.sleep(pause_s)
        with contextlib.suppress(ConnectionError):
            while piece := await loop.sock_recv(connection, 65_536):
                said += piece
    return bytes(said)
