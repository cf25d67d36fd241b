"""Which client a chain of proxies stands for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_platform.http.proxies import client_network

OURS = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8"))
PEER, CLIENT = "10.0.0.1", "198.51.100.9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "network"),
    [
        # Without a proxy of ours the header is a stranger's claim.
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", CLIENT, "192.0.2.1"),
        ("192.0.2.1", PEER, "192.0.2.1"),
        # From its end, as long as a proxy of ours wrote the entry.
        (PEER, CLIENT, CLIENT),
        (PEER, f"6.6.6.6, {CLIENT}", CLIENT),
        (PEER, f"6.6.6.6,{CLIENT} , 10.9.9.9,fd00::7", CLIENT),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        (PEER, f"{CLIENT}, ::ffff:10.9.9.9", CLIENT),
        # A chain of our own alone: somebody inside.
        (PEER, "", PEER),
        (PEER, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Forms of an address.
        (PEER, "198.51.100.9:4711", CLIENT),
        (PEER, "[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        (PEER, "[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        (PEER, "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
        # What is no address: it goes no further, and has no bucket for everybody.
        (PEER, "unknown", PEER),
        (PEER, "6.6.6.6, spoofed", PEER),
        (PEER, f"spoofed, {CLIENT}", CLIENT),
        (PEER, "6.6.6.6, 10.0.0.2, _hidden, 10.0.0.3", "10.0.0.3"),
        (PEER, "6.6.6.6,,", PEER),
        (PEER, "1.2.3.4:5:6", PEER),
        (PEER, "[2001:db8::1", PEER),
        ("", CLIENT, "unknown"),
    ],
)
def test_limits_count_for_the_network_that_is_really_there(peer: str, forwarded: str, network: str) -> None:
    assert client_network(peer, forwarded, OURS) == network


ADDRESSES = st.ip_addresses()
PROXIES = st.one_of(*(st.ip_addresses(network=network) for network in OURS))


def written(address: object, port: int | None) -> str:
    """An entry as proxies write it."""
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


@given(
    claimed=st.text(max_size=60),
    client=ADDRESSES,
    proxies=st.lists(PROXIES, min_size=1, max_size=5),
    ports=st.lists(st.none() | st.integers(1, 65535), min_size=6, max_size=6),
)
def test_whatever_a_client_claims_it_is_known_by_its_own_address(
    claimed: str, client: ipaddress.IPv4Address | ipaddress.IPv6Address, proxies: list[object], ports: list[int | None]
) -> None:
    # The client is no proxy of ours: its own claim, whatever it holds, stands before what the first proxy added.
    mapped = getattr(client, "ipv4_mapped", None) or client
    if any(mapped in network for network in OURS):
        return
    chain = [written(address, port) for address, port in zip([client, *proxies[:-1]], ports, strict=False)]
    known = client_network(str(proxies[-1]), ",".join([claimed, *chain]), OURS)
    assert known == client_network(str(client), "", ())


@given(peer=ADDRESSES, forwarded=st.text(alphabet="0123456789abcdef.:[], %x", max_size=80))
def test_every_header_gives_a_network(peer: ipaddress.IPv4Address | ipaddress.IPv6Address, forwarded: str) -> None:
    everybody = tuple(ipaddress.ip_network(text) for text in ("0.0.0.0/0", "::/0"))
    ipaddress.ip_network(client_network(str(peer), forwarded, everybody))
