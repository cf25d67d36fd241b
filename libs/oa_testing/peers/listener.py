"""A TCP server on loopback whose connections all end with it. Other peers and tests are built on it.

`asyncio.start_server` alone leaves them open: closing the server ends only the listening, and a handler that is
canceled before its first step closes nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Self

from oa_localstack.installation.ports import HOST

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]
"""Serves one connection, which is closed when this returns. A connection that breaks is no failure."""
_TURNS_TO_ACCEPT = 3
"""Turns of the loop until a connection that asyncio has taken from the system is known here: asyncio makes a task for
it, the task makes a transport, and the transport reports it."""


class Listener:
    """Serves each connection in a task of its own. Use it in `async with`, or with `start` and `stop`."""

    def __init__(self, serve: Serve, *, host: str = HOST, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        """The port it listens on, also after it has stopped; 0 until the system has chosen one."""
        self._serve = serve
        self._host = host
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(  # noqa: TID251 - what it leaves open, `stop` closes
            self._accept, self._host, self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and end every connection, whatever it is doing. Raises the error of one that failed."""
        if self._server is None:
            return
        # First, take nothing more from the system: a connection that was taken and is not known here yet would stay
        # open, and one that has no transport yet would never get one from a closed server.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        self._server.close()
        serving = list(self._open)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        if self._failure is not None:
            raise self._failure

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Register a connection. Not a coroutine, so that the connection is known even if its task never begins."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        writer = self._open.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            writer.close()
            return
        writer.transport.abort()
        if not isinstance(error, OSError | asyncio.IncompleteReadError | asyncio.CancelledError):
            self._failure = self._failure or error
