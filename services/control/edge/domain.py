"""What the edge reads from a request's headers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from oa_base.refusal import Refusal

_TIMEOUT = re.compile(r"[0-9]{1,10}")
_PROTOCOL_VERSION = "1"
_IPV6_NETWORK_BITS = 64


def check_protocol_version(headers: Mapping[str, str]) -> None:
    """Raises Refusal `unsupported_protocol_version`; a client needs not say its version."""
    if headers.get("connect-protocol-version", _PROTOCOL_VERSION) != _PROTOCOL_VERSION:
        message = "this version of the Connect protocol is not spoken here; use version 1"
        raise Refusal("unsupported_protocol_version", message)


def timeout_s(headers: Mapping[str, str], max_s: float) -> float:
    """Time for the call: what `Connect-Timeout-Ms` asks for, at most `max_s`. Raises Refusal `invalid_value`."""
    given = headers.get("connect-timeout-ms")
    if given is None:
        return max_s
    if not _TIMEOUT.fullmatch(given):
        message = "the value of Connect-Timeout-Ms is no number of milliseconds; send a whole one of at most 10 digits"
        raise Refusal("invalid_value", message, field="connect-timeout-ms")
    return min(int(given) / 1000, max_s)


def client_network(peer: str, forwarded_for: str, trusted_hops: int) -> str:
    """The network that limits count for: an IPv4 address, or an IPv6 /64, which is what one customer has.

    Of `X-Forwarded-For` only the entries that `trusted_hops` proxies of ours appended are believed: the last of them
    names the client. Without such proxies the header is a stranger's claim and isn't looked at.
    """
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    client = hops[-trusted_hops] if trusted_hops and len(hops) >= trusted_hops else peer
    try:
        address = ipaddress.ip_address(client.strip("[]"))
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
    return str(address)
