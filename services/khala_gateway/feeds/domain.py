"""WebSocket messages of a server, complete with their header: made once and sent unchanged to every client.

A server's frames are not masked (RFC 6455, 5.1), so the bytes are the same for every client.
"""

import struct
import zlib
from functools import cache

from oa_khala.frames import Form

_FIN_TEXT = 0x81
_FIN_BINARY = 0x82
_MAX_7_BIT = 125
_MAX_16_BIT = 0xFFFF
_RSV1 = 0x40
WINDOW_BITS = 12
"""The window of compressed messages: 4 KiB. Clients may not ask for a smaller one."""
# Half the time of level 6 for frames of some KiB, and at most 5 % more bytes.
_LEVEL = 1
_MEMORY_LEVEL = 5
# A flush ends with these bytes, and a message omits them (RFC 7692, 7.2.1).
_END_OF_FLUSH = b"\x00\x00\xff\xff"
_FORMS = tuple(Form)
ENCODINGS = 2 * len(_FORMS)
"""The number of encodings; the number of each encoding is below this."""


class Encoding:
    """How messages are written to a connection. `encoding_of` returns it: all connections of one kind share the same.

    Payloads of `deflate_from` bytes and more are compressed. None: none is, because the client accepts no such ones.
    """

    __slots__ = ("deflate_from", "form", "is_binary", "number", "plain")

    def __init__(self, form: Form, deflate_from: int | None) -> None:
        self.form = form
        self.deflate_from = deflate_from
        self.is_binary = form is Form.PROTO
        # The same encoding without compression.
        self.plain = self if deflate_from is None else encoding_of(form)
        # A plain number is the cheapest key there is.
        self.number = 2 * _FORMS.index(form) + (deflate_from is not None)


@cache
def encoding_of(form: Form, deflate_from: int | None = None) -> Encoding:
    """How messages are written to connections of that form. A process has one `deflate_from`."""
    return Encoding(form, deflate_from)


def binary_message(payload: bytes) -> bytes:
    """`payload` as one unfragmented binary message."""
    return _header(_FIN_BINARY, len(payload)) + payload


def text_message(payload: bytes) -> bytes:
    """`payload`, which is UTF-8, as one unfragmented text message."""
    return _header(_FIN_TEXT, len(payload)) + payload


def payload_of(message: bytes) -> bytes:
    """The payload of a message that `binary_message` or `text_message` made."""
    length = message[1]
    return message[2:] if length <= _MAX_7_BIT else message[4:] if length == _MAX_7_BIT + 1 else message[10:]


def deflated(message: bytes, min_bytes: int) -> bytes:
    """`message` compressed by permessage-deflate (RFC 7692), without a context of earlier messages: every client that
    has agreed on that can read it. Unchanged if its payload is below `min_bytes` or would not become smaller."""
    payload = payload_of(message)
    if len(payload) < min_bytes:
        return message
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEMORY_LEVEL)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    data = data[: -len(_END_OF_FLUSH)]
    return _header(message[0] | _RSV1, len(data)) + data if len(data) < len(payload) else message


def _header(first: int, length: int) -> bytes:
    if length <= _MAX_7_BIT:
        return bytes((first, length))
    if length <= _MAX_16_BIT:
        return struct.pack("!BBH", first, _MAX_7_BIT + 1, length)
    return struct.pack("!BBQ", first, _MAX_7_BIT + 2, length)
