"""Proxies on both sides of a service: its calls ignore those that its environment names, and of those in front of it
only the trusted ones are believed.

A service calls what its settings name. Libraries use `http_proxy` and similar variables unasked (gRPC also for
loopback), so a service removes these variables, for all calls that it and its libraries make.

A proxy in front adds the address that it sees to the end of `X-Forwarded-For`; anybody may have written the entries
before it. So the header is read from its end, for as long as the writer of an entry is a trusted proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache

from oa_platform.config.parsers import IpNetwork

NO_PROXY_OPTION = ("grpc.enable_http_proxy", 0)
"""For channels that are made while the environment still has a proxy."""
UNKNOWN_NETWORK = "unknown"
"""For a connection that was gone before its address could be read: nobody is left to count for."""
_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy"}
_IPV6_NETWORK_BITS = 64
# An address comes with every call and connection, and to read one takes 3 µs.
_REMEMBERED_ADDRESSES = 1024
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def forget_proxies(environment: MutableMapping[str, str]) -> None:
    """Remove every proxy from the environment, in both letter cases."""
    for name in [name for name in environment if name.lower() in _VARIABLES]:
        del environment[name]


def client_network(peer: str, forwarded_for: str, trusted: Sequence[IpNetwork]) -> str:
    """The network for which limits count: an IPv4 address, or an IPv6 /64, which is what one customer has.

    `peer` is the connection's other end. From there, the chain of `forwarded_for` (entries separated by commas) is
    followed, from its end, through addresses in `trusted`. The first other address is the client. If the chain ends
    before that, or goes on with something that is not an address, the client is the last proxy of the chain, because
    its own claim goes no further.
    """
    if not forwarded_for:
        return _network_of(peer)
    client = _address(peer)
    if client is None:
        return UNKNOWN_NETWORK
    hops = forwarded_for.split(",")
    while hops and _within(client, trusted):
        before = _address(hops.pop())
        if before is None:
            break
        client = before
    return _network(client)


def is_within(peer: str, networks: Sequence[IpNetwork]) -> bool:
    """Whether an address is in one of `networks`. A text that is not an address is in none."""
    if not networks:
        return False
    address = _address(peer)
    return address is not None and _within(address, networks)


@lru_cache(_REMEMBERED_ADDRESSES)
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


@lru_cache(_REMEMBERED_ADDRESSES)
def _network_of(peer: str) -> str:
    address = _address(peer)
    return UNKNOWN_NETWORK if address is None else _network(address)


def _within(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)


def _network(address: IpAddress) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
    return str(address)
