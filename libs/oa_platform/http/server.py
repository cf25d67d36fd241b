"""An ASGI application on a port, inside a process that already runs an event loop (uvicorn with httptools)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self, cast

import uvicorn

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address
from oa_platform.http.protocol import BoundedHttpProtocol
from oa_platform.tls.certificates import server_context
from oa_platform.tls.protection import PLAIN, Protection

# An ASGI application for both Starlette and uvicorn, whose types for it differ.
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
KEEP_ALIVE_S = 30
_START_POLL_S = 0.005


class HttpServer:
    """Serves `app` while entered. On leaving, requests under way have `drain_s` to end."""

    def __init__(
        self,
        app: AsgiApp,
        address: Address,
        *,
        variable: str,
        drain_s: float = 3.0,
        keep_alive_s: float = KEEP_ALIVE_S,
        protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol,
        protection: Protection = PLAIN,
    ) -> None:
        """`variable` is the setting that moves the address, for the message when the port is in use. A connection is
        closed after `keep_alive_s` without a request. `protocol` is for servers that set limits of their own."""
        self._address = address
        self._variable = variable
        self._protection = protection
        # A class of its own, of which `withdraw` changes an attribute.
        self._protocol: type[BoundedHttpProtocol] = type(protocol.__name__, (protocol,), {})
        config = uvicorn.Config(
            cast("Any", app),
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=cast("int", keep_alive_s),  # uvicorn passes it to the loop, which takes any number
            timeout_graceful_shutdown=max(1, round(drain_s)),
        )
        self._config = config
        self._server = _EmbeddedServer(config)
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """The port that it listens on, once it does."""

    async def __aenter__(self) -> Self:
        """Listen; raises Refusal: port_in_use, or invalid_setting for an address that needs TLS."""
        certificates = self._protection.for_listener(self._address, self._variable)
        if certificates is not None:
            self._config.ssl_context_factory = lambda _config, _default: server_context(certificates)
        listener = bind(self._address, self._variable)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name=f"http-{self.port}")
        while not self._server.started and not self._task.done():
            await asyncio.sleep(_START_POLL_S)
        if self._task.done():
            self._task.result()
            raise Refusal("start_failed", f"the HTTP server on {self._address} ended at its start; its log says why")
        return self

    async def withdraw(self) -> None:
        """From now on, answer each request with `Connection: close`. A proxy keeps connections for its next requests,
        and could send one just when the drain closes an idle connection: then nobody knows whether it was executed."""
        self._protocol.keeps_connections = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _EmbeddedServer(uvicorn.Server):
    """Leaves the process's signals to `oa_platform.process.lifecycle`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on `sockets`, with a limit for TLS handshakes: uvicorn sets none, so strangers would have a minute."""
        config, loop = self.config, asyncio.get_running_loop()
        protocol = cast("type[BoundedHttpProtocol]", config.http_protocol_class)
        handshake_s = protocol.head_timeout_s if config.ssl else None

        def connection() -> BoundedHttpProtocol:
            return protocol(config, self.server_state, self.lifespan.state)

        self.servers = []
        for listener in sockets or ():
            server = await loop.create_server(
                connection, sock=listener, ssl=config.ssl, ssl_handshake_timeout=handshake_s, backlog=config.backlog
            )
            self.servers.append(server)
        self.started = True


def bind(address: Address, variable: str) -> socket.socket:
    """A bound socket; raises Refusal: port_in_use, or invalid_setting for an address that isn't this machine's."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"can't listen on {address}, because the port is in use; set {variable} to another one"
            raise Refusal("port_in_use", message, field=variable, metadata={"port": str(address.port)}) from None
        message = f"can't listen on {address} ({error.strerror}); set {variable} to an address of this machine"
        raise Refusal("invalid_setting", message, field=variable) from None
    listener.setblocking(False)
    return listener
