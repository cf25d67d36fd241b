"""One socket: TCP and WebSocket on one side, whole messages on the other.

`websockets`' sans-I/O protocol reads and checks incoming data (RFC 6455). Outgoing messages are complete and were
encoded once for all clients, so they bypass it. The open check and the back-pressure that it would have provided are
therefore here, and nowhere else.
"""

import asyncio
import logging
from typing import Protocol, cast

import structlog
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF
from websockets.protocol import State as WsState
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from oa_base.refusal import Refusal
from oa_khala.frames import Form
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.feeds.domain import encoding_of
from services.khala_gateway.sockets.limits import SocketLimits
from services.khala_gateway.sockets.ws_door.compression import SharedDeflate
from services.khala_gateway.sockets.ws_door.handshake import refuse
from services.khala_gateway.sockets.ws_door.tcp import forget, taken_bytes

_log = structlog.get_logger(__name__)
# At lower levels `websockets` logs each frame, and a frame may hold a token.
_WS_LOG = logging.getLogger("websockets.khala")
_WS_LOG.setLevel(logging.WARNING)
_SUBPROTOCOLS = [Subprotocol(form.value) for form in Form]
_WRONG_TYPE = {
    Form.PROTO: Refusal("protocol_violation", f"{Form.PROTO.value} takes no text; send binary messages"),
    **{
        form: Refusal("protocol_violation", f"{form.value} takes text alone; send no binary messages")
        for form in (Form.READABLE, Form.JSON)
    },
}
_COMPRESSION = [SharedDeflate()]
_INVALID_DATA = 1007
_TOO_SLOW = "slow_consumer"
_END_OF_REQUEST = b"\r\n\r\n"


class _ServerProtocol(ServerProtocol):
    """The protocol of `websockets`, except that a Close between the fragments of a message is answered like any other:
    a control frame may stand there (RFC 6455, 5.4), and a message that the client abandons need not be complete."""

    def recv_frame(self, frame: Frame) -> None:
        """Handle a frame."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Sockets(Protocol):
    """All sockets of the server."""

    def arrived(self, socket: "Socket") -> bool:
        """Count a TCP connection. Returns False when it may not stay."""
        ...

    def admit(self, socket: "Socket", request: Request) -> str:
        """The bearer token of `request`, empty without one. Raises Refusal when the request is not admitted."""
        ...

    def opened(self, socket: "Socket", header_token: str) -> Connection:
        """Return the connection that serves the socket, whose handshake is done."""
        ...

    def gone(self, socket: "Socket") -> None:
        """Note that the TCP connection has closed."""
        ...


class Socket(asyncio.Protocol):
    """See the module. Implements `Transport` once it is open."""

    def __init__(self, sockets: Sockets, limits: SocketLimits) -> None:
        self._sockets = sockets
        self._limits = limits
        self._ws = _ServerProtocol(
            subprotocols=_SUBPROTOCOLS,
            extensions=_COMPRESSION if limits.deflate_from_bytes is not None else None,
            max_size=limits.max_frame_bytes,
            logger=_WS_LOG,
        )
        self._tcp: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._parts_opcode = Opcode.BINARY
        self._open = False
        self._ending = False
        self._lingers = False
        # The size of the write buffer from which the client is no longer read; None while all is written.
        self._read_up_to: int | None = None
        # The last bytes of the request so far, in which its end may have begun; None once it has come.
        self._request_end: bytes | None = b""
        self.connection: Connection | None = None
        self.encoding = encoding_of(Form.PROTO)
        # The address that the connection comes from; `network` is the network to which limits apply.
        self.peer = ""
        # Whether it is counted among the connections that have sent no request yet.
        self.waits = False
        self.network = ""

    # --------------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline for the request, because TCP is connected."""
        self._tcp = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = address[0] if address else ""
        self._tcp.set_write_buffer_limits(self._limits.write_high_bytes, self._limits.write_low_bytes)
        if self._sockets.arrived(self):
            self._abort_in(self._limits.handshake_deadline_ms)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Handle bytes. Those that follow the opening request have to wait until it has been answered."""
        if self._request_end is None:
            self._receive(data)
            return
        seen = self._request_end + data
        end = seen.find(_END_OF_REQUEST)
        if end < 0:
            self._request_end = seen[1 - len(_END_OF_REQUEST) :]
            self._receive(data)
            return
        rest = len(seen) - end - len(_END_OF_REQUEST)
        self._request_end = None
        self._receive(data[: len(data) - rest])
        self._receive(data[len(data) - rest :])

    def _receive(self, data: bytes) -> None:
        if data and not self._ws.reader.eof:
            self._ws.receive_data(data)
            self._process()
            self._read_no_more()

    def eof_received(self) -> bool:
        """Note that the client sends no more. The transport closes when everything has been written."""
        self._ws.receive_eof()
        self._process()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the TCP connection has closed."""
        self._cancel_timer()
        self._tcp = None
        if self.connection is not None:
            self.connection.closed()
        self._sockets.gone(self)

    def pause_writing(self) -> None:
        """Pause delivery, because the socket is full. The client is still read as long as the answers are small."""
        if self.connection is not None and self._tcp is not None and not self._ending:
            self._read_up_to = self._tcp.get_write_buffer_size() + self._limits.answers_bytes
            self.connection.blocked(True)

    def resume_writing(self) -> None:
        """Resume delivery, because the socket accepts more. Once the close has begun, this means that all was sent."""
        if self._ending:
            self._abort_in(self._limits.close_timeout_ms)
        elif self.connection is not None and self._tcp is not None:
            self._read_up_to = None
            self._tcp.resume_reading()
            self.connection.blocked(False)

    # --------------------------------------------------------------------------------------------- Transport

    @property
    def taken_bytes(self) -> int:
        """How many bytes the client has received since it connected, as far as the system knows."""
        return taken_bytes(self._tcp) if self._tcp is not None else 0

    def write(self, data: bytes) -> None:
        """Write complete messages unchanged; nothing once the close has begun."""
        if self._open and self._tcp is not None:
            self._tcp.write(data)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake behind what was written. Only a client that was too slow gets `linger_ms`."""
        if self._open:
            self._lingers = reason == _TOO_SLOW
            self._ws.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """End the socket now. Data that a client that was too slow has still not received is discarded."""
        if self._tcp is not None:
            if self._lingers and self._tcp.get_write_buffer_size() > 0:
                forget(self._tcp)
            self._tcp.abort()

    # --------------------------------------------------------------------------------------------- inside

    def _process(self) -> None:
        events = self._ws.events_received()
        self._flush()
        for event in events:
            match event:
                case Request():
                    self._request(event)
                    event.headers.clear()  # the parser keeps its request as long as the connection exists
                case Frame():
                    self._frame(event)
        self._flush()

    def _flush(self) -> None:
        """Write what the protocol answered by itself (the handshake, pongs, closes), and note whether it is open."""
        self._open = self._ws.state is WsState.OPEN
        if self._tcp is None:
            return
        for data in self._ws.data_to_send():
            if data != SEND_EOF:
                self._tcp.write(data)
            elif self._tcp.can_write_eof():
                self._tcp.write_eof()
        if not self._ending and (self._ws.close_expected() or self._ws.eof_sent):
            self._end(self._tcp)

    def _request(self, request: Request) -> None:
        try:
            header_token = self._sockets.admit(self, request)
        except Refusal as refusal:
            _log.info("handshake_refused", reason=refusal.reason)
            count_refusal(refusal.reason, "ws")
            self._ws.send_response(refuse(self._ws, refusal))
            return
        response: Response = self._ws.accept(request)
        self._ws.send_response(response)
        if response.status_code != 101:
            _log.info("handshake_refused", reason="not_websocket", status=response.status_code)
            return
        self._cancel_timer()
        deflate_from = self._limits.deflate_from_bytes if self._ws.extensions else None
        self.encoding = encoding_of(Form(self._ws.subprotocol), deflate_from)
        self._flush()
        self.connection = self._sockets.opened(self, header_token)

    def _frame(self, frame: Frame) -> None:
        connection = self.connection
        if connection is None or not self._open:
            return
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._data(connection, frame)
        else:
            connection.heard()

    def _data(self, connection: Connection, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._parts_opcode = frame.opcode
        if frame.data:  # empty ones count toward no limit, and a message may have any number of them
            self._parts.append(bytes(frame.data))
        if not frame.fin:
            connection.heard()
            return
        data, self._parts = b"".join(self._parts), []
        is_text = self._parts_opcode is Opcode.TEXT
        if is_text == self.encoding.is_binary:
            connection.malformed(_WRONG_TYPE[self.encoding.form])
        elif is_text and not _is_utf8(data):
            self._ws.fail(_INVALID_DATA, "text is not UTF-8")
        else:
            connection.message(data)

    def _read_no_more(self) -> None:
        tcp, up_to = self._tcp, self._read_up_to
        if tcp is not None and up_to is not None and tcp.get_write_buffer_size() > up_to:
            tcp.pause_reading()

    def _end(self, tcp: asyncio.Transport) -> None:
        """Begin the end of the socket. A client that was too slow gets time to receive what waits for it, and so learns
        why."""
        self._ending = True
        self._read_up_to = None
        tcp.resume_reading()
        tcp.set_write_buffer_limits(1, 0)
        lingers = self._lingers and tcp.get_write_buffer_size() > 0
        self._abort_in(self._limits.linger_ms if lingers else self._limits.close_timeout_ms)

    def _abort_in(self, delay_ms: int) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
