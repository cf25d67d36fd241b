"""What the system keeps for a connection: how much that may be, and how much of it the peer has taken."""

import asyncio
import socket
import struct

from services.khala_gateway.sockets.limits import SocketLimits

# `tcpi_bytes_acked` of Linux' struct tcp_info: what the peer's system has acknowledged, since the connection began.
_BYTES_ACKED = struct.Struct("=120xQ")


def bound_memory(listener: socket.socket, limits: SocketLimits) -> None:
    """Connections that `listener` accepts inherit these bounds; without them the system keeps megabytes for each."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.unsent_bytes)


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
