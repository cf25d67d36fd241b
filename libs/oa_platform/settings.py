"""The groups of settings that services share. Every limit has its name and its default here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from oa_platform.config import DefaultFrom, group, own_port, setting
from oa_platform.parsers import (
    Address,
    Secret,
    address,
    boolean,
    choice,
    http_url,
    integer,
    number,
    path,
    postgres_url,
    secret_text,
    service_hashes,
)
from oa_platform.ports import default_port


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged, and how it looks."""

    level: str = setting("OA_LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", doc="Least level.")
    format: str = setting(
        "OA_LOG_FORMAT", choice("json", "console"), "json", doc="One JSON object a line, or lines for people."
    )


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """How long starting and stopping may take."""

    start_deadline_s: float = setting(
        "OA_START_DEADLINE_S", number(0.1, 600), 30.0, doc="Longest start, waiting for what it needs included."
    )
    drain_deadline_s: float = setting(
        "OA_DRAIN_DEADLINE_S",
        number(0.1, 600),
        10.0,
        doc="Longest time from the first SIGTERM, SIGINT or SIGHUP to the end.",
    )


@dataclass(frozen=True, kw_only=True)
class OpsSettings:
    """/livez, /readyz and /metrics."""

    address: Address = setting("OA_OPS_ADDRESS", address(), own_port("ops"), doc="Where health and metrics are served.")
    check_timeout_s: float = setting(
        "OA_READY_CHECK_TIMEOUT_S", number(0.05, 60), 2.0, doc="Longest single readiness check."
    )


@dataclass(frozen=True, kw_only=True)
class GrpcServerSettings:
    """The gRPC port and its limits."""

    address: Address = setting("OA_GRPC_ADDRESS", address(), own_port("grpc"), doc="Where gRPC is served.")
    max_message_bytes: int = setting(
        "OA_GRPC_MAX_MESSAGE_BYTES", integer(1024, 256 << 20), 8 << 20, doc="Largest message, in and out."
    )
    max_calls: int = setting(
        "OA_GRPC_MAX_CALLS", integer(1, 1_000_000), 1000, doc="Most unary calls at a time; more are refused."
    )
    max_streams: int = setting(
        "OA_GRPC_MAX_STREAMS", integer(1, 1_000_000), 5000, doc="Most streams at a time; more are refused."
    )
    keepalive_interval_ms: int = setting(
        "OA_GRPC_KEEPALIVE_MS", integer(1000, 3_600_000), 10_000, doc="Pause between pings of an open connection."
    )
    keepalive_timeout_ms: int = setting(
        "OA_GRPC_KEEPALIVE_TIMEOUT_MS", integer(100, 600_000), 5_000, doc="How long a ping may stay unanswered."
    )
    stream_drain_s: float = setting(
        "OA_GRPC_STREAM_DRAIN_S", number(0, 600), 2.0, doc="Time that streams have to end by themselves in a drain."
    )
    call_drain_s: float = setting(
        "OA_GRPC_CALL_DRAIN_S", number(0, 600), 5.0, doc="Time that unary calls have to end in a drain."
    )


@dataclass(frozen=True, kw_only=True)
class GrpcClientSettings:
    """How other services are called."""

    max_message_bytes: int = setting(
        "OA_GRPC_MAX_MESSAGE_BYTES", integer(1024, 256 << 20), 8 << 20, doc="Largest message, in and out."
    )
    keepalive_interval_ms: int = setting(
        "OA_GRPC_KEEPALIVE_MS", integer(1000, 3_600_000), 10_000, doc="Pause between pings of an open connection."
    )
    keepalive_timeout_ms: int = setting(
        "OA_GRPC_KEEPALIVE_TIMEOUT_MS", integer(100, 600_000), 5_000, doc="How long a ping may stay unanswered."
    )
    reconnect_min_ms: int = setting(
        "OA_GRPC_RECONNECT_MIN_MS", integer(10, 600_000), 100, doc="First pause before connecting again."
    )
    reconnect_max_ms: int = setting(
        "OA_GRPC_RECONNECT_MAX_MS", integer(10, 600_000), 2_000, doc="Longest pause before connecting again."
    )


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """Who this service is to others, and whom it takes calls from."""

    service_token: Secret = setting("OA_SERVICE_TOKEN", secret_text(), doc="Shown to the services that this one calls.")
    accepted_services: Mapping[str, str] = setting(
        "OA_ACCEPTED_SERVICES",
        service_hashes(),
        DefaultFrom(lambda _service, _env: MappingProxyType({}), "none"),
        doc="Services that may call, each with the SHA-256 of its token.",
    )


def _control_url() -> DefaultFrom[str]:
    return DefaultFrom(
        lambda _, env: f"http://127.0.0.1:{default_port('control_http', env)}", "http://127.0.0.1, OA_PORT_BASE"
    )


@dataclass(frozen=True, kw_only=True)
class JwksSettings:
    """Where control's public keys come from."""

    control_url: str = setting("OA_CONTROL_URL", http_url(), _control_url(), doc="Control's public edge.")
    cache_file: Path | None = setting(
        "OA_JWKS_CACHE_FILE",
        path(),
        None,
        doc="Keeps the keys, so that a restart while control is down still verifies.",
    )
    refresh_interval_s: float = setting(
        "OA_JWKS_REFRESH_S", number(1, 86_400), 300.0, doc="Pause between refreshes of the keys."
    )
    min_refresh_interval_s: float = setting(
        "OA_JWKS_MIN_REFRESH_S", number(0.05, 3600), 2.0, doc="Least pause between fetches for an unknown key id."
    )
    fetch_timeout_s: float = setting("OA_JWKS_FETCH_TIMEOUT_S", number(0.05, 60), 3.0, doc="Longest fetch.")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """The pool of database connections, and how long anything with the database may take."""

    url: Secret = setting(
        "OA_DATABASE_URL",
        postgres_url(),
        doc="The service's own role in the database. Of several hosts, the one that takes writes is used.",
    )
    may_lose_commits: bool = setting(
        "OA_DATABASE_MAY_LOSE_COMMITS",
        boolean(),
        False,
        doc="Work on a server that may lose what it has acknowledged, because `fsync`, `full_page_writes` or "
        "`synchronous_commit` is off. Without this it is refused.",
    )
    pool_min: int = setting("OA_DATABASE_POOL_MIN", integer(0, 1000), 2, doc="Connections kept open.")
    pool_max: int = setting("OA_DATABASE_POOL_MAX", integer(1, 1000), 10, doc="Most connections.")
    connect_timeout_s: float = setting(
        "OA_DATABASE_CONNECT_TIMEOUT_S", number(0.1, 60), 3.0, doc="Longest attempt to connect to one host."
    )
    start_timeout_s: float = setting(
        "OA_DATABASE_START_TIMEOUT_S", number(0, 600), 15.0, doc="How long a start waits for the database."
    )
    acquire_timeout_s: float = setting(
        "OA_DATABASE_ACQUIRE_TIMEOUT_S", number(0.01, 60), 3.0, doc="Longest wait for a free connection."
    )
    statement_timeout_ms: int = setting(
        "OA_DATABASE_STATEMENT_TIMEOUT_MS", integer(1, 600_000), 10_000, doc="Longest statement."
    )
    lock_timeout_ms: int = setting(
        "OA_DATABASE_LOCK_TIMEOUT_MS", integer(1, 600_000), 5_000, doc="Longest wait for a lock."
    )
    idle_transaction_timeout_ms: int = setting(
        "OA_DATABASE_IDLE_TRANSACTION_TIMEOUT_MS", integer(1, 600_000), 10_000, doc="Longest pause in a transaction."
    )
    watch_ms: int = setting(
        "OA_DATABASE_WATCH_MS",
        integer(10, 600_000),
        2_000,
        doc="How often the server is asked whether it still takes writes, and keeps them.",
    )
    no_room_s: float = setting(
        "OA_DATABASE_NO_ROOM_S",
        number(0.1, 3600),
        15.0,
        doc="How long readiness says that nothing can be stored, after the database last said so (disk full).",
    )
    check_migrations: bool = setting(
        "OA_DATABASE_CHECK_MIGRATIONS", boolean(), True, doc="Refuse to start on a schema of another version."
    )


CLOCK_LEEWAY_MS = 5_000
"""Tokens are taken as if this service's clock were wrong by so much, either way."""


@dataclass(frozen=True, kw_only=True)
class ClockSettings:
    """How far the clocks of two machines may differ.

    Two services that are both ready may be twice `max_skew_ms` apart: keep that below `leeway_ms`.
    """

    leeway_ms: int = setting(
        "OA_CLOCK_LEEWAY_MS",
        integer(0, 600_000),
        CLOCK_LEEWAY_MS,
        doc="How wrong a clock may be when a token is looked at.",
    )
    max_skew_ms: int = setting(
        "OA_CLOCK_SKEW_MAX_MS",
        integer(1, 600_000),
        2_000,
        doc="Not ready when the clock differs by more from that of Postgres or control.",
    )


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service has; each derives its own class from it and sets `service`."""

    service: ClassVar[str] = ""
    log: LogSettings = group(LogSettings)
    process: ProcessSettings = group(ProcessSettings)
    ops: OpsSettings = group(OpsSettings)
    grpc: GrpcServerSettings = group(GrpcServerSettings)
    identity: IdentitySettings = group(IdentitySettings)
    clock: ClockSettings = group(ClockSettings)


def token_hash(token: str) -> str:
    """What OA_ACCEPTED_SERVICES holds for a service token: SHA-256 in hex. Service tokens are long random texts."""
    return hashlib.sha256(token.encode()).hexdigest()
