"""HTTP/1.1 with limits on connections, and on the size and time of a request's head. The parser itself has none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from oa_platform.config.parsers import IpNetwork
from oa_platform.http.proxies import client_network, is_within
from oa_platform.telemetry import metrics

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_NOWHERE = ("", 0)


class Connections:
    """The number of connections, in total and by network. Networks of `proxies` have no limit of their own, because
    many people are behind one proxy."""

    def __init__(self, maximum: int, max_of_network: int, proxies: Sequence[IpNetwork] = ()) -> None:
        self._maximum = maximum
        self._max_of_network = max_of_network
        self._proxies = proxies
        self._of: Counter[str] = Counter()

    def open(self, peer: str) -> str | None:
        """Count a connection from an address. Return the network to `close` later; None if there are too many."""
        network = client_network(peer, "", ())
        full = self._of[network] >= self._max_of_network and not is_within(peer, self._proxies)
        if full or self._of.total() >= self._maximum:
            return None
        self._of[network] += 1
        return network

    def close(self, network: str) -> None:
        """Stop counting a connection from the network."""
        self._of[network] -= 1
        if not self._of[network]:
            del self._of[network]


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. Use `limited_protocol` to get a class with other limits."""

    max_head_bytes: ClassVar[int] = 16 * 1024
    head_timeout_s: ClassVar[float] = 10.0
    connections_open: ClassVar[Connections] = Connections(8192, 512)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head with the connection."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        peer = transport.get_extra_info("peername") or _NOWHERE
        self._network = self.connections_open.open(str(peer[0]))
        if self._network is None:
            metrics.count_refusal("overloaded", "http")
            self._refuse(_TOO_MANY)
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and no longer count the connection."""
        self._stop_timer()
        if self._network is not None:
            self.connections_open.close(self._network)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of an unfinished head."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        self._start_timer()
        if self._head_bytes > self.max_head_bytes:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Start counting a head."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End a head. The middleware checks the size of one that arrives in one piece."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._refuse, _TOO_SLOW)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, answer: bytes) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


def limited_protocol(max_head_bytes: int, head_timeout_s: float, connections: Connections) -> type[LimitedHttpProtocol]:
    """The protocol with these limits, as a class, which is the form that uvicorn takes."""
    limits: dict[str, Any] = {
        "max_head_bytes": max_head_bytes,
        "head_timeout_s": head_timeout_s,
        "connections_open": connections,
    }
    return type("ConfiguredHttpProtocol", (LimitedHttpProtocol,), limits)
