"""HTTP/1.1 with limits on connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from oa_base.refusal import Refusal
from oa_platform.config.parsers import IpNetwork
from oa_platform.http.protocol import BoundedHttpProtocol
from oa_platform.http.proxies import client_network, is_within
from oa_platform.http.refusals import final_answer
from oa_platform.telemetry import metrics

_TOO_MANY = final_answer(
    HTTPStatus.TOO_MANY_REQUESTS,
    Refusal("overloaded", "there are too many connections; wait as long as Retry-After says", retry_after_ms=1000),
)
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


class LimitedHttpProtocol(BoundedHttpProtocol):
    """One connection, which counts. Use `limited_protocol` to get a class with other limits."""

    connections_open: ClassVar[Connections] = Connections(8192, 512)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and refuse it above the limits."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername") or _NOWHERE
        self._network = self.connections_open.open(str(peer[0]))
        if self._network is None:
            metrics.count_refusal("overloaded", "http")
            self.refuse(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """No longer count the connection."""
        if self._network is not None:
            self.connections_open.close(self._network)
        super().connection_lost(exc)


def limited_protocol(
    max_head_bytes: int, head_timeout_s: float, body_timeout_s: float, answer_timeout_s: float, connections: Connections
) -> type[LimitedHttpProtocol]:
    """The protocol with these limits, as a class, which is the form that uvicorn takes."""
    limits: dict[str, Any] = {
        "max_head_bytes": max_head_bytes,
        "head_timeout_s": head_timeout_s,
        "body_timeout_s": body_timeout_s,
        "answer_timeout_s": answer_timeout_s,
        "connections_open": connections,
    }
    return type("ConfiguredHttpProtocol", (LimitedHttpProtocol,), limits)
