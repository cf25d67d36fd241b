"""What a server said before it reset a connection is the answer."""

from __future__ import annotations

import asyncio
import socket

from oa_testing.raw_connection import raw_answer
from oa_testing.waiting import PATIENCE_S


async def test_an_answer_before_a_reset_is_returned() -> None:
    def refuses() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1, socket.MSG_PEEK)  # it is there, and stays unread
            connection.sendall(b"no")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuses))
        async with asyncio.timeout(PATIENCE_S):
            assert await raw_answer("127.0.0.1", listener.getsockname()[1], b"a", b"b", pause_s=0.01) == b"no"
        await refusing
