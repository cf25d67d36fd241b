"""What a client sends on an open WebSocket (RFC 6455, 5): bytes in, messages and control frames out, without I/O.

Outgoing messages don't pass here: each is complete, and was encoded once for all clients.
"""

from collections.abc import Iterator
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.base import Extension
from websockets.frames import Frame as ExtendedFrame
from websockets.frames import Opcode as ExtendedOpcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # on systems for which `websockets` has no compiled wheel
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
_RSV1, _RSV2_3, _OPCODE = 0x40, 0x30, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
# The size of a frame's head before its mask, by a length of these; of others it is 2 bytes (5.2).
_HEAD_BYTES = {126: 4, 127: 10}
_MAX_CONTROL_BYTES = 125
_DATA = frozenset({CONTINUATION, TEXT, BINARY})
_CONTROL = frozenset({CLOSE, PING, PONG})

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
TOO_LARGE = 1009
CLOSE_REASONS = {
    PROTOCOL_ERROR: "protocol_violation",
    INVALID_DATA: "malformed_message",
    TOO_LARGE: "request_too_large",
}
"""The reason of the catalogue in each Close that no ERROR precedes, so that clients know what it asks for."""
# Codes that a Close may hold (RFC 6455, 7.4, and the registry of IANA).
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_PRIVATE_CODES = range(3000, 5000)


class Received(NamedTuple):
    """A complete message (TEXT or BINARY), or a control frame (CLOSE, PING, PONG); a CONTINUATION stands for a part
    of a message that is not complete. Its `data` is empty."""

    opcode: int
    data: bytes


class Violation(Exception):
    """The client broke the protocol, as `text` says. The connection ends with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Incoming:
    """Reads the frames of one client. Messages have at most `max_bytes`, also when they are compressed."""

    __slots__ = ("_begun", "_deflate", "_is_deflated", "_max_bytes", "_needed", "_opcode", "_parts", "_parts_bytes")

    def __init__(self, max_bytes: int, deflate: Extension | None = None) -> None:
        """`deflate` inflates messages, if compression was agreed on."""
        self._max_bytes = max_bytes
        self._deflate = deflate
        # The beginning of a frame, and the number of bytes from which on it can be read further.
        self._begun: bytearray | None = None
        self._needed = 0
        # The parts of a message that is not complete, and the type of the message; CONTINUATION between messages.
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._opcode = CONTINUATION
        self._is_deflated = False

    def read(self, data: bytes) -> Iterator[Received]:
        """Everything that `data` completes. Raises Violation: whatever comes after that must not be read."""
        if self._begun is not None:
            self._begun += data
            if len(self._begun) < self._needed:
                return
            data = bytes(self._begun)
            self._begun = None
        at, size = 0, len(data)
        while at < size:
            end = self._frame_end(data, at)
            if end > size:
                self._begun, self._needed = bytearray(data[at:]), end - at
                return
            yield self._frame(data, at, end)
            at = end

    # --------------------------------------------------------------------------------------------- frames

    def _frame_end(self, data: bytes, at: int) -> int:
        """Where the frame at `at` ends, or where what says so ends. Refuses a frame before its payload is here."""
        if len(data) < at + 2:
            return at + 2
        first, second = data[at], data[at + 1]
        if not second & _MASKED:
            raise Violation(PROTOCOL_ERROR, "frames of clients are masked")
        self._check_first(first)
        length = second & _LENGTH
        head = at + _HEAD_BYTES.get(length, 2)
        if len(data) < head:
            return head
        if length in _HEAD_BYTES:
            length = int.from_bytes(data[at + 2 : head])
        if first & _OPCODE in _CONTROL:
            if length > _MAX_CONTROL_BYTES:
                raise Violation(PROTOCOL_ERROR, f"control frames hold at most {_MAX_CONTROL_BYTES} bytes")
        elif length > self._max_bytes - self._parts_bytes:
            raise self._too_large()
        return head + 4 + length

    def _check_first(self, first: int) -> None:
        opcode = first & _OPCODE
        may_be_deflated = self._deflate is not None and opcode in (TEXT, BINARY)
        if first & _RSV2_3 or (first & _RSV1 and not may_be_deflated):
            raise Violation(PROTOCOL_ERROR, "reserved bits are 0")
        if opcode in _CONTROL:
            if not first & FIN:
                raise Violation(PROTOCOL_ERROR, "control frames are not fragmented")
        elif opcode not in _DATA:
            raise Violation(PROTOCOL_ERROR, "unknown opcode")
        elif (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            raise Violation(PROTOCOL_ERROR, "a message begins with its type, and goes on without one")

    def _frame(self, data: bytes, at: int, end: int) -> Received:
        first, mask_at = data[at], at + _HEAD_BYTES.get(data[at + 1] & _LENGTH, 2)
        payload = apply_mask(data[mask_at + 4 : end], data[mask_at : mask_at + 4])
        opcode = first & _OPCODE
        if opcode not in _CONTROL:
            return self._data(opcode, payload, bool(first & FIN), bool(first & _RSV1))
        if opcode == CLOSE:
            _check_close(payload)
        return Received(opcode, payload)

    def _data(self, opcode: int, payload: bytes, fin: bool, deflated: bool) -> Received:
        if opcode != CONTINUATION:
            self._opcode, self._is_deflated = opcode, deflated
        if self._is_deflated:
            payload = self._inflated(opcode, payload, fin, deflated)
        if not fin:
            if payload:  # empty ones count toward no limit, and a message may have any number of them
                self._parts.append(payload)
                self._parts_bytes += len(payload)
            return Received(CONTINUATION, b"")
        if self._parts:
            payload = b"".join((*self._parts, payload))
            self._parts, self._parts_bytes = [], 0
        opcode, self._opcode = self._opcode, CONTINUATION
        return Received(opcode, payload)

    def _inflated(self, opcode: int, payload: bytes, fin: bool, deflated: bool) -> bytes:
        assert self._deflate is not None
        frame, room = ExtendedFrame(ExtendedOpcode(opcode), payload, fin, deflated), self._max_bytes - self._parts_bytes
        try:
            inflated = bytes(self._deflate.decode(frame, max_size=room).data)
        except PayloadTooBig:
            raise self._too_large() from None
        except ProtocolError:
            raise Violation(PROTOCOL_ERROR, "a compressed message can't be inflated") from None
        if len(inflated) > room:  # zlib takes no room for no limit, and may have kept the end of a match
            raise self._too_large()
        return inflated

    def _too_large(self) -> Violation:
        return Violation(TOO_LARGE, f"messages of clients have at most {self._max_bytes} bytes")


def control_frame(opcode: int, data: bytes) -> bytes:
    """A control frame of the server, of at most 125 bytes."""
    return bytes((FIN | opcode, len(data))) + data


def violation_frame(code: int) -> bytes:
    """A Close that no ERROR precedes: the client broke the protocol of WebSocket."""
    return close_frame(code, CLOSE_REASONS[code])


def close_frame(code: int, reason: str) -> bytes:
    """A Close of the server. The reason has at most 123 bytes."""
    return control_frame(CLOSE, code.to_bytes(2) + reason.encode())


def is_utf8(data: bytes) -> bool:
    """Whether `data` is text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not (code in _CLOSE_CODES or code in _PRIVATE_CODES):
        raise Violation(PROTOCOL_ERROR, "a Close holds nothing, or a code that clients may send")
    if not is_utf8(payload[2:]):
        raise Violation(INVALID_DATA, "the reason of a Close is not UTF-8")
