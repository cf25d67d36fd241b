"""One socket: TCP and WebSocket on one side, whole messages on the other.

Incoming data is read and checked by `opening` and `incoming`. Outgoing messages are complete and were encoded once for
all clients, so they are only written. The states of the closing handshake (RFC 6455, 7) and back-pressure are here.
"""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Protocol, cast

import structlog

from oa_base.refusal import Refusal
from oa_khala.frames import Form
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.feeds.domain import encoding_of
from services.khala_gateway.sockets.limits import SocketLimits
from services.khala_gateway.sockets.ws_door import incoming
from services.khala_gateway.sockets.ws_door.compression import agreed_deflate
from services.khala_gateway.sockets.ws_door.incoming import Incoming, Received, Violation
from services.khala_gateway.sockets.ws_door.opening import (
    END_OF_HEAD,
    NotOpened,
    Request,
    acceptance,
    agreed_subprotocol,
    check_opening,
    read_request,
    refusal_of,
    too_large,
)
from services.khala_gateway.sockets.ws_door.tcp import Deadline, forget, taken_bytes

_log = structlog.get_logger(__name__)
_SUBPROTOCOLS = [form.value for form in Form]
_WRONG_TYPE = {
    Form.PROTO: Refusal("protocol_violation", f"{Form.PROTO.value} takes no text; send binary messages"),
    **{
        form: Refusal("protocol_violation", f"{form.value} takes text alone; send no binary messages")
        for form in (Form.READABLE, Form.JSON)
    },
}
_TOO_SLOW = "slow_consumer"


class Sockets(Protocol):
    """All sockets of the server."""

    def arrived(self, socket: "Socket") -> bool:
        """Take in a TCP connection, until `gone`. Returns False when it may not stay."""
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

    __slots__ = (
        "_deadline",
        "_ending",
        "_head",
        "_incoming",
        "_limits",
        "_lingers",
        "_open",
        "_read_up_to",
        "_sockets",
        "_tcp",
        "_unread",
        "connection",
        "encoding",
        "network",
        "peer",
        "waits",
    )

    def __init__(self, sockets: Sockets, limits: SocketLimits) -> None:
        self._sockets = sockets
        self._limits = limits
        self._tcp: asyncio.Transport | None = None
        self._deadline = Deadline()
        # The opening request so far; None once it has been answered.
        self._head: bytearray | None = bytearray()
        # Reads what comes after the handshake; None before it, and once no more is read.
        self._incoming: Incoming | None = None
        # What came behind the frames that wait for a token.
        self._unread: Iterator[Received] | None = None
        # Whether messages may be written: between the handshake and the beginning of the close, on either side.
        self._open = False
        self._ending = False
        self._lingers = False
        # The size of the write buffer from which the client is no longer read; None while all is written.
        self._read_up_to: int | None = None
        self.connection: Connection | None = None
        self.encoding = encoding_of(Form.PROTO)
        # The address that the connection comes from, and the network to which limits apply: that of the address, until
        # a trusted proxy has said in the request for whom it is.
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
            self._deadline.set(self._limits.handshake_deadline_ms, self.abort)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Handle bytes."""
        if self._head is not None:
            data = self._take_head(self._head, data)
        if self._incoming is not None and data:
            came = self._incoming.read(data)
            if self._unread is None:
                self._take(came)
            else:  # the system gave it before it heard that we read no more
                self._unread = chain(self._unread, came)

    def eof_received(self) -> bool:
        """Note that the client sends no more. The transport closes when everything has been written."""
        self._open = False
        self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the TCP connection has closed."""
        self._deadline.cancel()
        self._tcp = self._unread = None
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
            self._deadline.set(self._limits.close_timeout_ms, self.abort)
        elif self.connection is not None and self._tcp is not None:
            self._read_up_to = None
            if self._unread is None:
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

    def write_all(self, messages: Sequence[bytes]) -> None:
        """Write several with one system call. They are not joined: a page that many clients get is kept once."""
        if self._open and self._tcp is not None:
            self._tcp.writelines(messages)

    def read_on(self) -> None:
        """Handle what came behind the frames that waited for a token, and read further."""
        unread, self._unread = self._unread, None
        if unread is not None and self._tcp is not None:
            self._tcp.resume_reading()
            self._take(unread)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake behind what was written. Only a client that was too slow gets `linger_ms`."""
        if self._open:
            self._lingers = reason == _TOO_SLOW
            self._say_last(incoming.close_frame(code, reason))

    def abort(self) -> None:
        """End the socket now. Data that a client that was too slow has still not received is discarded."""
        if self._tcp is not None:
            if self._lingers and self._tcp.get_write_buffer_size() > 0:
                forget(self._tcp)
            self._tcp.abort()

    # --------------------------------------------------------------------------------------------- handshake

    def _take_head(self, head: bytearray, data: bytes) -> bytes:
        """Take bytes of the opening request, and answer it once it is whole. Returns what came behind it."""
        searched = max(0, len(head) + 1 - len(END_OF_HEAD))
        head += data
        end = head.find(END_OF_HEAD, searched)
        size = len(head) if end < 0 else end + len(END_OF_HEAD)
        if end < 0 and size <= self._limits.max_request_bytes:
            return b""
        self._head = None
        try:
            if size > self._limits.max_request_bytes:
                raise too_large(head, self._limits.max_request_bytes)
            self._open_for(read_request(bytes(head[:size])))
        except NotOpened as no:
            self._refuse(refusal_of(head, no.status, no.refusal, no.headers), no.refusal)
        except Refusal as refusal:
            self._refuse(refusal_of(head, HTTPStatus(refusal.info.http_status), refusal), refusal)
        return bytes(head[size:])

    def _open_for(self, request: Request) -> None:
        """Open the WebSocket. Raises NotOpened, or Refusal for a request that is not admitted."""
        header_token = self._sockets.admit(self, request)
        check_opening(request)
        form = Form(agreed_subprotocol(request, _SUBPROTOCOLS))
        deflate_from, extension, deflate = self._limits.deflate_from_bytes, "", None
        if deflate_from is not None:
            extension, deflate = agreed_deflate(request.all("sec-websocket-extensions"))
        if self._tcp is None:
            return
        self._deadline.cancel()
        self._tcp.write(acceptance(request, form.value, extension))
        self._open = True
        self._incoming = Incoming(self._limits.max_frame_bytes, deflate)
        self.encoding = encoding_of(form, deflate_from if deflate is not None else None)
        self.connection = self._sockets.opened(self, header_token)

    def _refuse(self, answer: bytes, refusal: Refusal) -> None:
        _log.info("handshake_refused", reason=refusal.reason)
        count_refusal(refusal.reason, "ws")
        if self._tcp is not None:
            self._tcp.write(answer)
            self._finish()

    # --------------------------------------------------------------------------------------------- messages

    def _take(self, came: Iterator[Received]) -> None:
        """Handle what came, up to where the client is no longer read: the connection takes no more for now, or too many
        answers wait."""
        try:
            for received in came:
                self._handle(received)
                if self._incoming is None:
                    return
                if self.connection is not None and self.connection.is_full:
                    self._unread = came
                    break
        except Violation as violation:
            self._finish(incoming.violation_frame(violation.code))
        tcp, up_to = self._tcp, self._read_up_to
        if tcp is not None and (
            self._unread is not None or (up_to is not None and tcp.get_write_buffer_size() > up_to)
        ):
            tcp.pause_reading()

    def _handle(self, received: Received) -> None:
        opcode, data = received
        if opcode == incoming.PING and self._tcp is not None:
            self._tcp.write(incoming.control_frame(incoming.PONG, data))
        if opcode == incoming.CLOSE:
            # The same in answer, unless this answers ours.
            self._finish(incoming.control_frame(incoming.CLOSE, data))
        elif self.connection is not None and self._open:
            is_text = opcode == incoming.TEXT
            if opcode not in (incoming.TEXT, incoming.BINARY):
                self.connection.heard()
            elif is_text == self.encoding.is_binary:
                self.connection.malformed(_WRONG_TYPE[self.encoding.form])
            elif is_text and not incoming.is_utf8(data):
                self._finish(incoming.violation_frame(incoming.INVALID_DATA))
            else:
                self.connection.message(data)

    # --------------------------------------------------------------------------------------------- close

    def _say_last(self, frame: bytes) -> None:
        """Write a Close, unless the close has begun."""
        if self._open and self._tcp is not None:
            self._open = False
            self._tcp.write(frame)
            self._end(self._tcp)

    def _finish(self, frame: bytes = b"") -> None:
        """Write a Close, unless the close has begun. Then send no more, and read no more: of both ends, a server ends
        TCP first (RFC 6455, 7.1.1)."""
        self._say_last(frame)
        self._open = False
        self._incoming = self._unread = None
        if self._tcp is not None:
            if self._tcp.can_write_eof():
                self._tcp.write_eof()
            self._end(self._tcp)

    def _end(self, tcp: asyncio.Transport) -> None:
        """Begin the end of the socket, once. A client that was too slow gets time to receive what waits for it, and so
        learns why."""
        if self._ending:
            return
        self._ending = True
        self._read_up_to = None
        tcp.resume_reading()
        tcp.set_write_buffer_limits(1, 0)
        lingers = self._lingers and tcp.get_write_buffer_size() > 0
        self._deadline.set(self._limits.linger_ms if lingers else self._limits.close_timeout_ms, self.abort)
        self.read_on()  # the client's Close may be among it
