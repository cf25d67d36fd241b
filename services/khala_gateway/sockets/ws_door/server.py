"""The WebSocket port: admission in front, drain at the end."""

import asyncio
from types import TracebackType
from typing import Self

import structlog

from oa_platform.config.parsers import Address
from oa_platform.http.proxies import client_network, is_within
from oa_platform.http.server import bind
from oa_platform.http.tls_listener import HandshakeLimits, TlsListener
from oa_platform.system.ids import new_id
from oa_platform.tasks.events import until_set
from oa_platform.telemetry.metrics import show_refusals
from oa_platform.tls.protection import PLAIN, Protection
from services.khala_gateway.admission.app import Admission
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.sockets import metrics
from services.khala_gateway.sockets.domain import drain_delays_ms
from services.khala_gateway.sockets.limits import PortLimits
from services.khala_gateway.sockets.ws_door.opening import Request
from services.khala_gateway.sockets.ws_door.socket import Socket
from services.khala_gateway.sockets.ws_door.tcp import bound_memory

_log = structlog.get_logger(__name__)


class WebSocketServer:
    """Listens while entered; leaving it drains. Implements `Sockets`."""

    def __init__(
        self,
        address: Address,
        dependencies: Dependencies,
        admission: Admission,
        limits: PortLimits,
        protection: Protection = PLAIN,
    ) -> None:
        self._address = address
        self._protection = protection
        self._dependencies = dependencies
        self._admission = admission
        self._limits = limits
        self.sockets: dict[Socket, None] = {}
        self._open = 0
        self._all_gone = asyncio.Event()
        self._draining = False
        self._server: asyncio.Server | TlsListener | None = None
        self.port = 0
        show_refusals("ws")

    async def __aenter__(self) -> Self:
        """Listen. Raises Refusal: port_in_use, or invalid_setting for an address that needs TLS."""
        certificates = self._protection.for_listener(self._address, "OA_WS_ADDRESS")
        listener = bind(self._address, "OA_WS_ADDRESS")
        bound_memory(listener, self._limits.socket)
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        backlog = self._limits.backlog
        if certificates is None:
            self._server = await loop.create_server(self._new_socket, sock=listener, backlog=backlog)
        else:
            handshakes = HandshakeLimits(
                max_of_network=self._limits.max_handshakes_of_network,
                deadline_s=self._limits.socket.handshake_deadline_ms / 1000,
                trusted=self._limits.trusted,
                backlog=backlog,
            )
            self._server = TlsListener(listener, self._new_socket, certificates, handshakes, "ws")
        _log.info("ws_listening", address=str(self._address), port=self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Accept no more connections, tell all clients when to come back, close one after the other, end the rest."""
        if self._server is not None:
            self._server.close()
        await self._drain()
        if isinstance(self._server, TlsListener):
            await self._server.wait_closed()
        for socket in list(self.sockets):
            socket.abort()
        _log.info("ws_stopped", port=self.port)

    async def _drain(self) -> None:
        self._draining = True
        self._admission.drain()
        delays = drain_delays_ms(len(self.sockets), self._limits.drain_window_ms)
        _log.info("ws_draining", connections=len(delays), window_ms=self._limits.drain_window_ms)
        for socket, delay_ms in zip(list(self.sockets), delays, strict=True):
            if socket.connection is not None:
                socket.connection.drain(delay_ms)
            else:
                socket.abort()
        if not self.sockets:
            return
        timeout_ms = self._limits.drain_window_ms + self._limits.socket.close_timeout_ms
        await until_set(self._all_gone, timeout_ms / 1000)

    def _new_socket(self) -> Socket:
        return Socket(self, self._limits.socket)

    # --------------------------------------------------------------------------------------------- Sockets

    def arrived(self, socket: Socket) -> bool:
        """Take in a TCP connection that has sent no request yet. Returns False when its address has too many of them.

        With TLS it has shaken hands: see `TlsListener` for those that have not.
        """
        self.sockets[socket] = None
        socket.network = client_network(socket.peer, "", ())
        # Behind our own proxies all connections come from few addresses, and the proxies enforce a limit.
        if not is_within(socket.peer, self._limits.trusted):
            socket.waits = self._admission.arrived(socket.network)
            return socket.waits
        return True

    def _asked(self, socket: Socket) -> None:
        if socket.waits:
            socket.waits = False
            self._admission.asked(socket.network)

    def admit(self, socket: Socket, request: Request) -> str:
        """The bearer token of `request`. Raises Refusal when the request is not admitted."""
        self._asked(socket)
        forwarded = ", ".join(request.all("x-forwarded-for"))
        socket.network = client_network(socket.peer, forwarded, self._limits.trusted)
        origins, authorizations = request.all("origin"), request.all("authorization")
        return self._admission.admit(self._open + 1, socket.network, request.path, origins, authorizations)

    def opened(self, socket: Socket, header_token: str) -> Connection:
        """Return a new connection for a socket whose handshake is done."""
        metrics.CONNECTIONS.inc()
        self._open += 1
        self._admission.came(socket.network)
        return Connection(new_id("con"), socket, self._dependencies, header_token)

    def gone(self, socket: Socket) -> None:
        """Note that the TCP connection has closed."""
        self.sockets.pop(socket, None)
        self._asked(socket)
        if socket.connection is not None:
            metrics.CONNECTIONS.dec()
            self._open -= 1
            self._admission.went(socket.network)
        if self._draining and not self.sockets:
            self._all_gone.set()
