"""Limits of TLS handshakes at the public ports."""

from __future__ import annotations

from dataclasses import dataclass

from oa_platform.config.loading import setting
from oa_platform.config.parsers import integer


@dataclass(frozen=True, kw_only=True)
class HandshakeSettings:
    """Limits of TLS handshakes with outside callers."""

    max_of_network: int = setting(
        "OA_EDGE_TLS_MAX_HANDSHAKES_OF_NETWORK",
        integer(1, 1_000_000),
        200,
        doc="Maximum number of TLS handshakes under way with one network (IPv4 address or IPv6 /64); more connections "
        "are closed. Trusted proxies are exempt: before a handshake, only the proxy's address is known.",
    )
