"""What a connection takes: a deadline, bounds on the data that the system keeps, and how much the peer has received."""

import asyncio
import socket
import struct
from collections.abc import Callable

from services.khala_gateway.sockets.limits import SocketLimits

# `tcpi_bytes_acked` of Linux's struct tcp_info: bytes that the peer's system has acknowledged since the connection
# began.
_BYTES_ACKED = struct.Struct("=120xQ")
# struct linger: on, and zero seconds.
_AT_ONCE = struct.pack("=ii", 1, 0)


class Deadline:
    """One time at most, after which something is done."""

    __slots__ = ("_timer",)

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_ms: int, passed: Callable[[], None]) -> None:
        """Call `passed` in `delay_ms`, and forget what was set before."""
        self.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, passed)

    def cancel(self) -> None:
        """Forget what was set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bound_memory(listener: socket.socket, limits: SocketLimits) -> None:
    """Set bounds that connections accepted by `listener` inherit; without them the system keeps megabytes for each."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.unsent_bytes)


def forget(tcp: asyncio.Transport) -> None:
    """Have the peer get a reset when `tcp` is closed, and the system discard what it keeps for the peer.

    Otherwise the system goes on offering the data to a peer that accepts none, and keeps the memory meanwhile.
    """
    connection = tcp.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def taken_bytes(tcp: asyncio.Transport) -> int:
    """How much the peer has received: a number that grows whenever it receives something, also under TLS.

    Where the system does not report what was acknowledged, data that leaves our own buffer counts.
    """
    connection = tcp.get_extra_info("socket")
    if hasattr(socket, "TCP_INFO") and connection is not None:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        if len(info) == _BYTES_ACKED.size:
            return int(_BYTES_ACKED.unpack(info)[0])
    return -tcp.get_write_buffer_size()
