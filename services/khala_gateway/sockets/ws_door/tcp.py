"""What the system keeps for a connection: how much that may be, and how much of it the peer has taken."""

import asyncio
import socket
import struct

from services.khala_gateway.sockets.limits import SocketLimits

# `tcpi_bytes_acked` of Linux' struct tcp_info: what the peer's system has acknowledged, since the connection began.
_BYTES_ACKED = struct.Struct("=120xQ")
# struct linger: on, and no second.
_AT_ONCE = struct.pack("=ii", 1, 0)


def bound_memory(listener: socket.socket, limits: SocketLimits) -> None:
    """Connections that `listener` accepts inherit these bounds; without them the system keeps megabytes for each."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.unsent_bytes)


def forget(tcp: asyncio.Transport) -> None:
    """When `tcp` is closed, the peer gets a reset, and the system throws away what it keeps for it.

    Without this it goes on to offer that to a peer that takes nothing, and keeps the memory meanwhile.
    """
    connection = tcp.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def taken_bytes(tcp: asyncio.Transport) -> int:
    """How much the peer has taken: a number that grows whenever it takes something, under TLS too.

    Where the system does not say what was acknowledged, what leaves our own buffer counts.
    """
    connection = tcp.get_extra_info("socket")
    if hasattr(socket, "TCP_INFO") and connection is not None:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        if len(info) == _BYTES_ACKED.size:
            return int(_BYTES_ACKED.unpack(info)[0])
    return -tcp.get_write_buffer_size()
