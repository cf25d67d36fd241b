"""HTTP/1.1 of our servers: uvicorn's protocol, with limits and with the framing of RFC 9112.

uvicorn and its parser know no limits, take trailers for headers, stop reading a request at its Upgrade header, and send
an answer in two pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oa_base.refusal import Refusal
from oa_platform.http.refusals import final_answer

_MALFORMED = final_answer(
    HTTPStatus.BAD_REQUEST,
    Refusal("malformed_message", "this is no HTTP as RFC 9112 describes it; use an HTTP client"),
)
_TOO_SLOW = final_answer(
    HTTPStatus.REQUEST_TIMEOUT,
    Refusal("deadline_exceeded", "the request's head came too slowly; send it sooner"),
)
_TOO_LARGE = final_answer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    Refusal("request_too_large", "the request's head is too large; send fewer or shorter headers"),
)
_BLANKS = b" \t"


class _HeadWithBody:
    """The transport of one answer: its head leaves together with what follows in the same turn of the loop.

    uvicorn writes the head of an answer and its body one after the other. Each write is a system call, and wakes the
    client up, which can do nothing with a head alone.
    """

    __slots__ = ("_close", "_has_written", "_head", "_loop", "_transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, close: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._head = b""
        self._has_written = False

    def write(self, data: bytes) -> None:
        """Send what has been held back and `data`; the first data is held back until then, or the turn's end."""
        if not self._has_written:
            self._has_written = True
            self._head = data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._flush()
        self._close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. The limits hold for each request; subclasses may have others.

    `max_head_bytes` is also the limit of everything else that is no part of a body, such as trailers. Within
    `head_timeout_s` a head has to be complete, and within `body_timeout_s` the rest of a body that was answered before
    it was complete. Until then, the application limits the time of a body. A client that takes nothing of an answer for
    `answer_timeout_s` is given up: otherwise the connection would stay, even after it was closed, because what was
    written goes out first.
    """

    max_head_bytes: ClassVar[int] = 16 * 1024
    head_timeout_s: ClassVar[float] = 10.0
    body_timeout_s: ClassVar[float] = 15.0
    answer_timeout_s: ClassVar[float] = 60.0
    linger_s: ClassVar[float] = 1.0
    """How long what a refused client still sends is dropped before its connection is closed."""
    max_lingering: ClassVar[int] = 512
    """Of so many connections of a process at once. Further ones are closed immediately."""
    keeps_connections: ClassVar[bool] = True
    """Whether a connection stays open after an answer, for the next request."""
    _lingering: ClassVar[set[BoundedHttpProtocol]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head with the connection."""
        super().connection_made(transport)
        _limit_unread(transport, self.answer_timeout_s)
        self._in_head = False
        self._in_body = False
        self._is_ended = False
        # Bytes since a head ended, or since a part of a body came; and whether that happened in this segment.
        self._head_bytes = 0
        self._moved = False
        self._upgrades: list[tuple[bytes, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        self._lingering.discard(self)
        super().connection_lost(exc)

    # --------------------------------------------------------------------------------------------- what arrives

    def data_received(self, data: bytes) -> None:
        """Read a segment, and count its bytes if all of them belong to something unfinished that is no body.

        Only then: a segment that ends one thing and begins the next would count for both. So what is too large may be
        refused one segment late, but nothing else is refused.
        """
        if self._is_over():
            return
        self._unset_keepalive_if_required()
        self._moved = False
        self._parse(data)
        if self._is_over():
            return
        self._head_bytes = 0 if self._moved else self._head_bytes + len(data)
        if self._head_bytes > self.max_head_bytes:
            self.refuse(_TOO_LARGE)
        elif self._in_head:
            self._start_head_timer()
        elif not self._in_body:
            self._rest()

    def _parse(self, data: bytes) -> None:
        """An Upgrade to a protocol that isn't spoken here is ignored (RFC 9110, 7.8). The parser can't do that: it
        takes everything after such a head for the other protocol. So a new parser gets the head without it."""
        pieces: list[bytes | memoryview] = [memoryview(data)]
        while pieces:
            piece = pieces.pop(0)
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade as upgrade:
                pieces = [self._head_without_upgrade(), piece[upgrade.args[0] :]]
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except HttpParserError:
                self.refuse(_MALFORMED)
                return

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        self._upgrades = [header for header in self.headers if header[0] == b"upgrade"]
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # ------------------------------------------------------------------------------------------- what the parser finds

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header without the blanks around its value, which are no part of it (RFC 9110, 5.5). Drop a trailer,
        which is no header (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value.rstrip(_BLANKS))

    def on_headers_complete(self) -> None:
        """End a head, unless it comes again without its Upgrade. Raises ValueError for a CONNECT."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return
        self.headers.extend(self._upgrades)
        self._upgrades = []
        # If it raises, the head is the part that is malformed.
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", _HeadWithBody(self.transport, self.loop, self._close))
        if not self.keeps_connections:
            self.cycle.keep_alive = False
        if self.expect_100_continue:
            # If it is answered before it may continue, nobody knows whether its body comes or the next request (RFC
            # 9110, 10.1.1).
            self.cycle.keep_alive = False
        self._in_head, self._in_body, self._moved = False, True, True
        self._stop_timer()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self.parser.should_upgrade():
            return
        self._in_body, self._moved = False, True
        self._stop_timer()
        super().on_message_complete()

    # --------------------------------------------------------------------------------------------- time

    def on_response_complete(self) -> None:
        """Give the rest of a body its time if it has already been answered: nobody else watches it now."""
        super().on_response_complete()
        if self in self._lingering:
            self._unset_keepalive_if_required()
        elif self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.body_timeout_s, self.transport.close)

    def _rest(self) -> None:
        """Start uvicorn's timer for an idle connection again. Every byte stops it, even one that begins no request."""
        newest = self._newest
        if newest is not None and newest.response_complete:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_head_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._timer = None
        if self.is_answering:
            # Reading may have been paused until the earlier request is answered.
            self._start_head_timer()
        else:
            self.refuse(_TOO_SLOW)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --------------------------------------------------------------------------------------------- refusals

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.refuse(_MALFORMED)

    def refuse(self, answer: bytes) -> None:
        """End the connection, with this answer to the request that arrives. A client would take it for the answer to
        another request if one of these is not answered yet, or if this one is answered: then it is not sent."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if not self._in_body and self.is_answering:
            # The earlier request gets its answer, and that ends the connection.
            self._is_ended = True
            self.cycle.keep_alive = False
            return
        if not self._in_body or not (self.cycle.response_started or self.pipeline):
            self.transport.write(answer)
        self._is_ended = True
        self._close()

    def _close(self) -> None:
        """Close the connection once everything is sent. If the client may still be sending, it is told first that
        nothing more comes, and what arrives is dropped for a moment: the system resets a connection that is closed
        while something arrives, and a client that is reset loses the answer (RFC 9112, 9.6)."""
        if self.transport.is_closing():
            return
        if not (self._is_ended or self._in_body) or len(self._lingering) >= self.max_lingering:
            self.transport.close()
            return
        self._is_ended = True
        self._lingering.add(self)
        self._stop_timer()
        self.pipeline.clear()
        if self.is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self._timer = self.loop.call_later(self.linger_s, self.transport.close)

    def _is_over(self) -> bool:
        return self._is_ended or self.transport.is_closing()

    @property
    def is_answering(self) -> bool:
        """Whether a request whose head is complete is not answered yet."""
        newest = self._newest
        return newest is not None and not newest.response_complete

    @property
    def _newest(self) -> RequestResponseCycle | None:
        """The newest request whose head is complete. uvicorn's type for it forgets the time before the first one."""
        return cast("RequestResponseCycle | None", self.cycle)


def _limit_unread(transport: asyncio.Transport, limit_s: float) -> None:
    """Let the system end a connection whose other end takes nothing, or is gone, for that long while something waits
    for it. Systems without such a limit (RFC 5482) keep such a connection."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    connection = transport.get_extra_info("socket")
    if option is not None and connection is not None:
        with contextlib.suppress(OSError):  # it is gone already
            connection.setsockopt(socket.IPPROTO_TCP, option, max(1, int(limit_s * 1000)))
