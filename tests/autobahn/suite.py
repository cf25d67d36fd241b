"""Autobahn's cases, run against the gateway's sockets: whatever a client sends is RFC 6455, and is answered so.

An echo stands behind the sockets instead of Khala. There is no group 8, and none of today's cases is in 11.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib import import_module
from typing import cast

from kosoku import FailureError, run_fuzzingclient
from kosoku._caseindex import initialize_shims
from kosoku._kosoku import CaseResult

from oa_base.refusal import Refusal
from oa_khala.frames import Form
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.feeds.domain import binary_message, deflated, encoding_of, text_message
from services.khala_gateway.sockets.limits import SocketLimits
from services.khala_gateway.sockets.ws_door.incoming import BINARY, TEXT, Received
from services.khala_gateway.sockets.ws_door.opening import Request
from services.khala_gateway.sockets.ws_door.socket import Socket

GROUPS = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
LIMITS = SocketLimits(max_frame_bytes=32 * 1024 * 1024, deflate_from_bytes=0)
"""Those of the gateway, but for the size of messages: group 9 has some of 16 MiB."""
# These offer compression only with a window of 512 bytes: what is compressed once for everybody needs a larger one.
DECLINED = ("13.3", "13.5")
_ANSWERS = {False: {"OK", "NON-STRICT", "INFORMATIONAL"}, True: {"UNIMPLEMENTED"}}
_CLOSES = {"OK", "INFORMATIONAL"}


class EchoSocket(Socket):
    """A socket of the gateway, to which the type of each message is that of its connection."""

    def _handle(self, received: Received) -> None:
        if received.opcode in (TEXT, BINARY):
            form = Form.JSON if received.opcode == TEXT else Form.PROTO
            self.encoding = encoding_of(form, self.encoding.deflate_from)
        super()._handle(received)


class EchoConnection:
    """Says what it hears."""

    is_full = False
    """It takes every message."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def message(self, data: bytes) -> None:
        """A whole message."""
        encoding = self._socket.encoding
        message = binary_message(data) if encoding.is_binary else text_message(data)
        self._socket.write(message if encoding.deflate_from is None else deflated(message, encoding.deflate_from))

    def malformed(self, refusal: Refusal) -> None:
        """Never: each type is right."""
        raise AssertionError(refusal)

    def heard(self) -> None:
        """A sign of life."""

    def blocked(self, blocked: bool) -> None:
        """The socket is full, or no longer."""

    def closed(self) -> None:
        """TCP is gone."""


class EchoSockets:
    """Lets everybody in. Implements `Sockets`."""

    def arrived(self, socket: Socket) -> bool:
        """See Sockets."""
        return True

    def admit(self, socket: Socket, request: Request) -> str:
        """See Sockets. Autobahn asks for no subprotocol; one that is answered all the same does not disturb it."""
        request.headers["sec-websocket-protocol"] = [Form.PROTO.value]
        return ""

    def opened(self, socket: Socket, header_token: str) -> Connection:
        """See Sockets."""
        return cast("Connection", EchoConnection(socket))

    def gone(self, socket: Socket) -> None:
        """See Sockets."""


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """The address of an echo."""
    sockets = EchoSockets()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EchoSocket(sockets, LIMITS), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def results(cases: Sequence[str]) -> list[CaseResult]:
    """What the cases found, in their order; after a failure, at least of those that failed."""
    _repair_kosoku()
    async with echoing() as url:
        try:
            return await run_fuzzingclient(url, list(cases))
        except FailureError as failure:
            return failure.results


def defects(found: Iterable[CaseResult]) -> list[str]:
    """One line for each case that was answered as no case may be. Those that offer what is declined have to find that
    compression is unimplemented, and the connection to be closed in order."""
    return [
        f"{case.case_id}: {case.behavior.value}, close {case.behavior_close.value}: {case.result}"
        for case in found
        if case.behavior.value not in _ANSWERS[case.case_id.rpartition(".")[0] in DECLINED]
        or case.behavior_close.value not in _CLOSES
    ]


@cache
def _repair_kosoku() -> None:
    """The cases of compression take messages as bytes, as Python 2 gave them; kosoku gives them texts."""
    initialize_shims()
    cases = import_module("case12_x_x")
    for case in (*cases.Case12_X_X, *cases.Case13_X_X):
        case.onMessage = _with_bytes(case.onMessage)


def _with_bytes(on_message: Callable[[object, bytes, bool], None]) -> Callable[[object, str | bytes, bool], None]:
    def given(case: object, message: str | bytes, binary: bool) -> None:
        as_text = "latin-1" if binary else "utf-8"
        on_message(case, message.encode(as_text) if isinstance(message, str) else message, binary)

    return given


def group_of(case: CaseResult) -> str:
    """The group that a case belongs to."""
    return case.case_id.partition(".")[0]
