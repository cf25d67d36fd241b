"""Proxies on both sides of a service: none that its environment names for what it calls, and of those in front of it
only the trusted ones are believed.

A service calls what its settings name. Libraries take `http_proxy` and its like from the environment unasked (gRPC also
for loopback); so a service forgets them, for all that it and its libraries call.

A proxy in front adds the address that it sees to the end of `X-Forwarded-For`; what stands before that anybody may have
written. So the header is read from its end, for as long as the one who wrote the entry is a trusted proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import MutableMapping, Sequence

from oa_platform.config.parsers import IpNetwork

NO_PROXY_OPTION = ("grpc.enable_http_proxy", 0)
"""For channels that are made where the environment still has a proxy."""
UNKNOWN_NETWORK = "unknown"
"""For a connection that was gone before its address could be asked for: nobody is left to count for."""
_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy"}
_IPV6_NETWORK_BITS = 64
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def forget_proxies(environment: MutableMapping[str, str]) -> None:
    """Take every proxy out of the environment, in both letter cases."""
    for name in [name for name in environment if name.lower() in _VARIABLES]:
        del environment[name]


def client_network(peer: str, forwarded_for: str, trusted: Sequence[IpNetwork]) -> str:
    """The network that limits count for: an IPv4 address, or an IPv6 /64, which is what one customer has.

    `peer` is the connection's other end. From there the chain of `forwarded_for` (entries separated by commas) is
    followed, from its end, through addresses in `trusted`. The first other address is the client. Where the chain ends
    before, or goes on with what is no address, it is the last proxy of the chain: its own claim goes no further.
    """
    client = _address(peer)
    if client is None:
        return UNKNOWN_NETWORK
    hops = forwarded_for.split(",") if forwarded_for else []
    while hops and _within(client, trusted):
        before = _address(hops.pop())
        if before is None:
            break
        client = before
    return _network(client)


def is_within(peer: str, networks: Sequence[IpNetwork]) -> bool:
    """Whether an address is in one of `networks`. What is no address is in none."""
    address = _address(peer)
    return address is not None and _within(address, networks)


def _address(text: str) -> IpAddress | None:
    """The address in `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`."""
    text = text.strip()
    if with_port := _WITH_PORT.fullmatch(text):
        text = with_port[1] or with_port[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _within(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)


def _network(address: IpAddress) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
    return str(address)
