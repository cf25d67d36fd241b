"""Parses a database URL as asyncpg does: `postgresql://user:password@one:5432,two:5433/openagents?…`, for example."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from oa_platform.config.ports import HIGHEST_PORT

DEFAULT_PORT = 5432
Host = tuple[str, int]
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%]+)\]|(?P<name>[^\[\]:,@]+))(?::(?P<port>[0-9]{1,5}))?")
# A service writes, so it has no use for servers that must not be written to.
_ATTRIBUTES = ("any", "primary", "read-write")


def database_hosts(url: str) -> tuple[Host, ...]:
    """The hosts with their ports, in order; none when the URL leaves them to the environment.

    They stand before the path, or in the query (`?host=one,two&port=5432,5433`; one port is for all hosts). Raises
    ValueError for an entry that is not a host.
    """
    parts = urlsplit(url)
    listed = parts.netloc.partition("@")[2] if "@" in parts.netloc else parts.netloc
    if listed:
        return tuple(_host(one) for one in listed.split(","))
    query = parse_qs(parts.query)
    hosts, ports = (query[key][-1].split(",") if key in query else [] for key in ("host", "port"))
    given = [int(port) for port in ports] or [0]
    if len(given) == 1:
        given *= len(hosts)
    return tuple(_host(host, port) for host, port in zip(hosts, given, strict=True))


def _host(text: str, given_port: int = 0) -> Host:
    match = _HOST.fullmatch(text)
    port = given_port or int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port <= HIGHEST_PORT:
        raise ValueError("not a host with a port")
    return match["six"] or unquote(match["name"]), port


def database_location(url: str, host: Host | None = None) -> str:
    """Hosts, ports and name of the database, or those of one host, without user and password: for messages."""
    hosts = (host,) if host else database_hosts(url) or (("localhost", DEFAULT_PORT),)
    shown = (f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in hosts)
    return f"{','.join(shown)}{urlsplit(url).path}"


def check_database_url(url: str) -> None:
    """Raise ValueError unless it is a database URL that a service can use."""
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql") or len(parts.path) < 2:
        raise ValueError("not a database URL")
    database_hosts(url)
    for wanted in parse_qs(parts.query).get("target_session_attrs", ()):
        if wanted not in _ATTRIBUTES:
            raise ValueError("not a server that takes writes")
