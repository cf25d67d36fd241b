"""WebSocket messages of a server, complete with their header: made once, sent to everybody as they are.

A server's frames are not masked (RFC 6455, 5.1), so the bytes are the same for every client.
"""

import struct

_FIN_TEXT = 0x81
_FIN_BINARY = 0x82
_LONGEST_7_BIT = 125
_LONGEST_16_BIT = 0xFFFF


def binary_message(payload: bytes) -> bytes:
    """`payload` as one unfragmented binary message."""
    return _header(_FIN_BINARY, len(payload)) + payload


def text_message(payload: bytes) -> bytes:
    """`payload`, which is UTF-8, as one unfragmented text message."""
    return _header(_FIN_TEXT, len(payload)) + payload


def payload_of(message: bytes) -> bytes:
    """The payload of a message that `binary_message` or `text_message` made."""
    length = message[1]
    return message[2:] if length <= _LONGEST_7_BIT else message[4:] if length == _LONGEST_7_BIT + 1 else message[10:]


def _header(first: int, length: int) -> bytes:
    if length <= _LONGEST_7_BIT:
        return bytes((first, length))
    if length <= _LONGEST_16_BIT:
        return struct.pack("!BBH", first, _LONGEST_7_BIT + 1, length)
    return struct.pack("!BBQ", first, _LONGEST_7_BIT + 2, length)
