"""The opening handshake (RFC 6455, 4.2): the bytes of a request and of its answer, without I/O.

The parser is llhttp, through `httptools`: it reads a whole request head at once, so nothing of it is kept for a
connection that is open.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from oa_base.refusal import Refusal

END_OF_HEAD = b"\r\n\r\n"
# `Connection` names Upgrade, so that a proxy passes neither on (RFC 9110, 7.8): in HTTP/2 they break the answer.
_UPGRADE = {"Upgrade": "websocket", "Connection": "close, Upgrade"}
_VERSION = "13"
_NO_HTTP = "this is not HTTP/1.1; connect with a WebSocket client"
# 16 bytes in base64.
_ABSOLUTE = re.compile(r"(?:http|ws)s?://[^/?]*", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Request:
    """A request without a body. Header names are in lower case."""

    __slots__ = ("headers", "method", "path", "version")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.version = ""
        self.headers: dict[str, list[str]] = {}

    def all(self, name: str) -> Sequence[str]:
        """The values of all headers of that name, in order."""
        return self.headers.get(name, ())

    def items(self, name: str) -> list[str]:
        """The items of a header that is a comma-separated list."""
        return [item for value in self.all(name) for item in map(str.strip, value.split(",")) if item]

    # --------------------------------------------------------------------------------------------- from the parser

    def on_url(self, url: bytes) -> None:
        """Take the path, with its query."""
        self.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))


class NotOpened(Exception):
    """The request does not open a WebSocket. `status` is more exact than the status of the refusal's reason."""

    def __init__(self, status: HTTPStatus, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal)
        self.status = status
        self.refusal = refusal
        self.headers = headers or {}


def read_request(head: bytes) -> Request:
    """The request whose head is `head`, up to and including the empty line. Raises NotOpened."""
    request = Request()
    parser = HttpRequestParser(request)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        pass  # so it asks for an upgrade
    except HttpParserError:
        raise _malformed(_NO_HTTP) from None
    if not request.path:  # only empty lines, such as those with which version 2 of the PROXY protocol begins
        raise _malformed(_NO_HTTP)
    request.path = _ABSOLUTE.sub("", request.path, count=1) if _ABSOLUTE.match(request.path) else request.path
    request.method = parser.get_method().decode("latin-1")
    request.version = parser.get_http_version()
    return request


def too_large(head: bytes | bytearray, max_bytes: int) -> NotOpened:
    """The refusal of a request whose head begins with `head` and is larger than `max_bytes`."""
    one_line = b"\n" not in head[:max_bytes]  # however many bytes came with it
    status = HTTPStatus.REQUEST_URI_TOO_LONG if one_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    text = f"a request with its headers has at most {max_bytes} bytes; send fewer headers, or a shorter path"
    return NotOpened(status, Refusal("request_too_large", text))


def check_opening(request: Request) -> None:
    """Check that `request` asks for a WebSocket. Raises NotOpened."""
    if request.method != "GET":
        text = "this method opens no WebSocket; connect with GET"
        raise NotOpened(HTTPStatus.METHOD_NOT_ALLOWED, Refusal("method_not_allowed", text), {"Allow": "GET"})
    if request.version != "1.1":
        text = "this version of HTTP opens no WebSocket; connect with HTTP/1.1"
        raise NotOpened(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, Refusal("protocol_violation", text))
    if len(request.all("host")) != 1:
        raise _malformed("the request has no Host header, or several; send one")
    if request.all("transfer-encoding") or not set(request.all("content-length")) <= {"0"}:
        raise _malformed("a request for a WebSocket has no body; send none")
    upgrades = map(str.lower, request.items("upgrade"))
    if "upgrade" not in map(str.lower, request.items("connection")) or "websocket" not in upgrades:
        text = "this is a WebSocket endpoint; connect with Connection: Upgrade and Upgrade: websocket"
        raise NotOpened(HTTPStatus.UPGRADE_REQUIRED, Refusal("protocol_violation", text), _UPGRADE)
    if request.all("sec-websocket-version") != [_VERSION]:
        text = f"the version of the protocol is another one; connect with Sec-WebSocket-Version: {_VERSION}"
        headers = {**_UPGRADE, "Sec-WebSocket-Version": _VERSION}
        raise NotOpened(HTTPStatus.UPGRADE_REQUIRED, Refusal("protocol_violation", text), headers)
    keys = request.all("sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise _malformed("the request has no usable key; send one Sec-WebSocket-Key of 16 bytes in base64")


def agreed_subprotocol(request: Request, supported: Sequence[str]) -> str:
    """The first of the `supported` subprotocols that the request offers. Raises NotOpened when it offers none."""
    offered = set(request.items("sec-websocket-protocol"))
    for subprotocol in supported:
        if subprotocol in offered:
            return subprotocol
    text = f"the request offers no subprotocol of this server; offer one of {', '.join(supported)}"
    raise NotOpened(HTTPStatus.BAD_REQUEST, Refusal("unsupported_protocol_version", text))


def acceptance(request: Request, subprotocol: str, extension: str) -> bytes:
    """The answer that opens the WebSocket; `extension` is empty when none was agreed on."""
    key = request.all("sec-websocket-key")[0].encode("ascii")
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest()).decode("ascii")
    extensions = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n{extensions}\r\n"
    ).encode("latin-1")


def refusal_of(
    request: bytes | bytearray, status: HTTPStatus, refusal: Refusal, headers: Mapping[str, str] | None = None
) -> bytes:
    """The answer to a request that opens nothing: the reason as JSON, with Retry-After where it helps, and with
    WWW-Authenticate in a 401 (RFC 9110, 15.5.2). The answer to a HEAD has no body (9.3.2)."""
    said = {"code": refusal.info.grpc_code.lower(), "reason": refusal.reason, "message": refusal.message}
    body = (json.dumps(said) + "\n").encode()
    retry = {"Retry-After": str(refusal.retry_hint_s)} if refusal.retry_hint_ms else {}
    scheme = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    lines = {
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **retry,
        **scheme,
        **(headers or {}),
    }
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in lines.items())]
    return "\r\n".join(head).encode("latin-1") + END_OF_HEAD + (b"" if request.startswith(b"HEAD ") else body)


def _malformed(text: str) -> NotOpened:
    return NotOpened(HTTPStatus.BAD_REQUEST, Refusal("malformed_message", text))
