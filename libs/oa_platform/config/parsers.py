"""How the text of an environment variable becomes a value, and what it is expected to be, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

from oa_platform.config.dsn import check_database_url
from oa_platform.config.ports import HIGHEST_PORT

T = TypeVar("T")
IpNetwork = IPv4Network | IPv6Network
_MAPPED_BITS = 96
_WEB_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_NOT_IN_URL = re.compile(r"[?#\s\x00-\x20\x7f]")
"""What begins a query or a fragment, and what no URL holds."""
_WEB_PORTS = {"http": 80, "https": 443}
MAX_TOKENS = 2
"""Maximum number of tokens of one service that are accepted at a time: the old one and the new one."""


@dataclass(frozen=True)
class Parser(Generic[T]):
    """`parse` raises ValueError; `expects` completes "it must be …". The text of a secret is never shown."""

    parse: Callable[[str], T]
    expects: str
    secret: bool = False
    mistaken_for_secret: bool = False
    """Whether a wrong text is not shown either, because somebody may have given a secret in its place."""


@dataclass(frozen=True)
class Secret:
    """A text that is shown only on request."""

    _text: str
    source: Path | None = field(default=None, compare=False)
    """The file that it was read from, if it was."""

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(…)" if self._text else "Secret()"

    __str__ = __repr__


@dataclass(frozen=True)
class Address:
    """Where to listen or connect."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """Where another service is called: at one address, at all that its name resolves to, or at each of several."""

    addresses: tuple[Address, ...]
    resolver: str = ""
    """The DNS server to ask, host:port; empty for the machine's own."""

    def __str__(self) -> str:
        """The target in the form that gRPC takes."""
        if len(self.addresses) == 1:
            return f"dns://{self.resolver}/{self.addresses[0]}"
        family = "ipv6" if ":" in self.addresses[0].host else "ipv4"
        return f"{family}:{','.join(str(address) for address in self.addresses)}"

    @property
    def is_loopback(self) -> bool:
        """Whether every address means this machine."""
        return all(address.is_loopback for address in self.addresses)


def is_loopback(host: str) -> bool:
    """Whether a host's name or IP address means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def networks() -> Parser[Sequence[IpNetwork]]:
    """IP networks, separated by commas; an empty text means none. A network of all addresses is refused.

    An IPv4 network written as a part of IPv6 (`::ffff:10.0.0.0/104`) is that IPv4 network.
    """

    def parse(given: str) -> Sequence[IpNetwork]:
        parts = [part.strip() for part in given.split(",")] if given.strip() else []
        found = tuple(_unmapped(ip_network(part)) for part in parts)
        if any(network.prefixlen == 0 for network in found):
            raise ValueError
        return found

    return Parser(parse, "a list of networks like 10.0.0.0/8,192.0.2.7,2001:db8::/32, none with everybody in it")


def _unmapped(network: IpNetwork) -> IpNetwork:
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def text(max_length: int = 1024) -> Parser[str]:
    """Any text of limited length."""

    def parse(given: str) -> str:
        if len(given) > max_length:
            raise ValueError
        return given

    return Parser(parse, f"a text of at most {max_length} characters")


def secret_text(expects: str = "a secret text") -> Parser[Secret]:
    """A text that must not be shown."""
    return Parser(Secret, expects, secret=True)


def integer(minimum: int, maximum: int) -> Parser[int]:
    """A whole number within bounds, both included."""

    def parse(given: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", given) or not minimum <= int(given) <= maximum:
            raise ValueError
        return int(given)

    return Parser(parse, f"a whole number from {minimum} to {maximum}")


def number(minimum: float, maximum: float) -> Parser[float]:
    """A number within bounds, both included."""

    def parse(given: str) -> float:
        value = float(given)
        if not minimum <= value <= maximum:  # also refuses NaN
            raise ValueError
        return value

    return Parser(parse, f"a number from {minimum:g} to {maximum:g}")


def boolean() -> Parser[bool]:
    """Yes or no."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

    def parse(given: str) -> bool:
        if given.lower() not in words:
            raise ValueError
        return words[given.lower()]

    return Parser(parse, "1, true or yes, or 0, false or no")


def choice(*options: str) -> Parser[str]:
    """One of some words."""

    def parse(given: str) -> str:
        if given not in options:
            raise ValueError
        return given

    return Parser(parse, f"one of {', '.join(options)}")


def variables(never: str) -> Parser[tuple[str, ...]]:
    """Names of environment variables, or prefixes of names followed by `*`; none may begin with `never`."""
    pattern = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")

    def parse(given: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in given.split(","))
        for name in names:
            if not pattern.fullmatch(name):
                raise ValueError
            if name.startswith(never):
                raise ValueError(f"what begins with {never} stays with the program")
        return names

    return Parser(parse, "a list like JAVA_HOME,PIP_*")


def path() -> Parser[Path]:
    """A path on this machine."""
    return Parser(Path, "a path")


def address() -> Parser[Address]:
    """host:port; an IPv6 host is in brackets."""
    pattern = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")

    def parse(given: str) -> Address:
        match = pattern.fullmatch(given)
        if not match or int(match["port"]) > HIGHEST_PORT:
            raise ValueError
        return Address(match["six"] or match["name"], int(match["port"]))

    return Parser(parse, "an address like 127.0.0.1:9081")


def target() -> Parser[Target]:
    """Addresses of the replicas of a service."""
    one = address()
    named = re.compile(r"dns://(?P<resolver>[^/]*)/(?P<address>[^/]+)")

    def parse(given: str) -> Target:
        match = named.fullmatch(given)
        if match:
            resolver = match["resolver"] and str(one.parse(match["resolver"]))
            return Target((one.parse(match["address"]),), resolver)
        addresses = tuple(one.parse(part.strip()) for part in given.split(","))
        if len(addresses) > 1 and len({_family(each.host) for each in addresses}) > 1:
            raise ValueError("several addresses are of one family")
        if len(set(addresses)) < len(addresses):
            raise ValueError("an address stands in it twice")
        return Target(addresses)

    return Parser(parse, "an address like runtime:9081, or several IP addresses like 10.0.0.1:9081,10.0.0.2:9081")


def _family(host: str) -> int:
    """4 or 6; raises ValueError for a name."""
    try:
        return ip_address(host).version
    except ValueError:
        raise ValueError("several are IP addresses; give a name alone, and let DNS resolve it to all of them") from None


def _url_parts(given: str, *schemes: str) -> SplitResult:
    """The parts of a URL of one of `schemes`, with a host and without query and fragment. Raises ValueError.

    `urlsplit` removes line breaks, and reads a port only when it is asked for it.
    """
    parts = urlsplit(given)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0 or _NOT_IN_URL.search(given):
        raise ValueError
    return parts


def http_url() -> Parser[str]:
    """An http(s) URL without credentials, query or trailing slash."""

    def parse(given: str) -> str:
        if "@" in _url_parts(given, "http", "https").netloc:
            raise ValueError
        return given.rstrip("/")

    return Parser(parse, "a URL like http://127.0.0.1:8080")


def web_origins() -> Parser[Sequence[str]]:
    """Origins of web pages, separated by commas, in the form in which browsers send them."""

    def parse(given: str) -> Sequence[str]:
        return tuple(_web_origin(part.strip()) for part in given.split(","))

    return Parser(parse, "a list of origins like https://app.example.org,http://127.0.0.1:5173")


def _web_origin(given: str) -> str:
    """Browsers send scheme and host in lower case, and a port only if it is not the scheme's own. Raises ValueError."""
    parts = _WEB_ORIGIN.fullmatch(given)
    if parts is None:
        raise ValueError
    scheme, host = parts["scheme"].lower(), parts["host"].lower()
    port = int(parts["port"] or _WEB_PORTS[scheme])
    if not 0 < port <= HIGHEST_PORT:
        raise ValueError
    return f"{scheme}://{host}" if port == _WEB_PORTS[scheme] else f"{scheme}://{host}:{port}"


def proxy_url() -> Parser[Secret]:
    """An HTTP proxy; secret, because it may hold a password."""

    def parse(given: str) -> Secret:
        parts = _url_parts(given, "http")
        if not parts.port or parts.path.strip("/"):
            raise ValueError
        return Secret(given.rstrip("/"))

    return Parser(parse, "a URL like http://proxy.example.com:3128", secret=True)


def nats_url() -> Parser[Secret]:
    """A NATS server; secret, because it may hold a password or a token."""

    def parse(given: str) -> Secret:
        if _url_parts(given, "nats", "tls").path.strip("/"):
            raise ValueError
        return Secret(given.rstrip("/"))

    return Parser(parse, "a URL like nats://user:password@nats.example.com:4222, or tls://…", secret=True)


def postgres_url() -> Parser[Secret]:
    """A database URL; secret, because it holds a password."""

    def parse(given: str) -> Secret:
        check_database_url(given)
        return Secret(given)

    expects = (
        "a database URL like postgresql://user:password@host:5432/openagents, of one host or of host:port,host:port"
    )
    return Parser(parse, expects, secret=True)


def service_hashes() -> Parser[Mapping[str, str]]:
    """Names of services with the SHA-256 of their tokens, as hash -> service: "control=<hex>,khala_gateway=<hex>".

    A service may have two tokens, the old one and the new one, so that one can be replaced by the other.
    """
    pattern = re.compile(r"(?P<service>[a-z][a-z0-9_]*)=(?P<hash>[0-9a-f]{64})")

    def parse(given: str) -> Mapping[str, str]:
        accepted: dict[str, str] = {}
        for part in given.split(","):
            match = pattern.fullmatch(part.strip())
            if not match or match["hash"] in accepted:
                raise ValueError
            accepted[match["hash"]] = match["service"]
        if any(count > MAX_TOKENS for count in Counter(accepted.values()).values()):
            raise ValueError(f"a service has at most {MAX_TOKENS} tokens at a time")
        return MappingProxyType(accepted)

    expects = (
        f"a list like control=<sha256 in hex>,khala_gateway=<sha256 in hex>, with at most {MAX_TOKENS} for a service"
    )
    return Parser(parse, expects, mistaken_for_secret=True)


def service_certificates() -> Parser[Mapping[str, str]]:
    """Names of services with a name of their certificates, as certificate name -> service.

    A service may have several certificates, so that one can be replaced by another.
    """
    pattern = re.compile(r"(?P<service>[a-z][a-z0-9_]*)=(?P<name>[!-+\--~]{1,255})")

    def parse(given: str) -> Mapping[str, str]:
        accepted: dict[str, str] = {}
        for part in given.split(","):
            match = pattern.fullmatch(part.strip())
            if not match or match["name"] in accepted:
                raise ValueError
            accepted[match["name"]] = match["service"]
        return MappingProxyType(accepted)

    expects = "a list like control=control.openagents.svc,projector=spiffe://example.org/projector"
    return Parser(parse, expects)
