"""The memory that Linux keeps for the TCP connections of a port, as in `ss --memory`: by sock_diag(7), over netlink."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SOCK_DIAG = 4
_BY_FAMILY = 20
_DUMP = 0x301
_DONE, _ERROR = 3, 2
_SKMEMINFO = 7
_LISTENS = 10
_ANY_STATE = 0xFFFFFFFF
_MESSAGE = struct.Struct("=IHHII")
# Family, protocol, the extensions that are requested, padding, states; and an id that names no socket.
_REQUEST = struct.Struct("=BBBBI48x")
_ANSWER_BYTES = 72
_ATTRIBUTE = struct.Struct("=HH")
# Received, its limit, in flight, its limit, reserved, queued for sending, options, backlog.
_MEMORY = struct.Struct("=8I")


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """The memory for all connections of a port together."""

    connections: int
    sending_bytes: int
    receiving_bytes: int


def kernel_memory(port: int) -> KernelMemory:
    """The memory of the side that has `port`. Raises OSError if the system can't be asked."""
    count = sending = receiving = 0
    for local_port, memory in _connections():
        if local_port == port:
            received, _, _, _, aside, queued, *_ = _MEMORY.unpack_from(memory)
            count, sending, receiving = count + 1, sending + queued + aside, receiving + received
    return KernelMemory(count, sending, receiving)


def _connections() -> Iterator[tuple[int, bytes]]:
    """The local port and the memory of each connection over IPv4."""
    request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 1 << (_SKMEMINFO - 1), 0, _ANY_STATE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asked:
        asked.send(_MESSAGE.pack(_MESSAGE.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        while True:
            data = asked.recv(1 << 18)
            while data:
                size, kind, *_ = _MESSAGE.unpack_from(data)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the system does not say what it keeps for sockets")
                yield from _connection(data[_MESSAGE.size : size])
                data = data[_aligned(size) :]


def _connection(answer: bytes) -> Iterator[tuple[int, bytes]]:
    if answer[1] == _LISTENS:
        return
    attributes = answer[_ANSWER_BYTES:]
    while attributes:
        size, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _SKMEMINFO:
            yield int.from_bytes(answer[4:6], "big"), attributes[_ATTRIBUTE.size : size]
        attributes = attributes[_aligned(size) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
