"""The groups of settings that services share. Every limit has its name and its default here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import urlsplit

from oa_platform.config.loading import DefaultFrom, Problem, group, own_port, peer_port, setting
from oa_platform.config.parsers import (
    Address,
    IpNetwork,
    Secret,
    Target,
    address,
    boolean,
    choice,
    http_url,
    integer,
    is_loopback,
    nats_url,
    networks,
    number,
    path,
    postgres_url,
    secret_text,
    service_certificates,
    service_hashes,
    target,
)
from oa_platform.config.ports import default_port
from oa_platform.config.production import DEVELOPMENT, PRODUCTION, production_problems, weak

DRAIN_DEADLINE = "OA_DRAIN_DEADLINE_S"
"""The limit that every wait of a drain must lie within."""


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Which records are logged, and in what form."""

    level: str = setting(
        "OA_LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", doc="Lowest level that is logged."
    )
    format: str = setting(
        "OA_LOG_FORMAT", choice("json", "console"), "json", doc="One JSON object per line, or lines for people."
    )


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Whether anything depends on a process, and how long its start and its end may take."""

    environment: str = setting(
        "OA_ENV",
        choice(PRODUCTION, DEVELOPMENT),
        PRODUCTION,
        doc="production refuses settings that suit only a trial: see [production "
        "checks](operations/production-checks.md).",
    )
    start_deadline_s: float = setting(
        "OA_START_DEADLINE_S",
        number(0.1, 600),
        30.0,
        doc="Maximum time to start, including the wait for dependencies.",
    )
    drain_deadline_s: float = setting(
        DRAIN_DEADLINE,
        number(0.1, 600),
        10.0,
        doc="Maximum time to drain, from the end of the lame duck period to the end of the process.",
    )
    lame_duck_s: float = setting(
        "OA_LAME_DUCK_S",
        number(0, 600),
        0.0,
        doc="How long a service that was told to stop still accepts new work after it reports itself unready, so "
        "that load balancers notice. A second signal ends the wait.",
    )
    grace_period_s: float | None = setting(
        "OA_GRACE_PERIOD_S",
        number(0.1, 3600),
        None,
        doc="Time after which the platform kills a process that was told to stop. The lame duck period and the "
        "drain must fit into it.",
    )

    def problems(self) -> Iterator[Problem]:
        """Waits that would not end in time."""
        if self.grace_period_s is not None and self.lame_duck_s + self.drain_deadline_s > self.grace_period_s:
            text = (
                f"OA_LAME_DUCK_S ({self.lame_duck_s:g}) and {DRAIN_DEADLINE} ({self.drain_deadline_s:g}) together are "
                f"longer than OA_GRACE_PERIOD_S ({self.grace_period_s:g}); shorten them, or raise the grace period "
                "here and on the platform"
            )
            yield "OA_GRACE_PERIOD_S", text


@dataclass(frozen=True, kw_only=True)
class OpsSettings:
    """/livez, /readyz and /metrics."""

    address: Address = setting(
        "OA_OPS_ADDRESS", address(), own_port("ops"), doc="Address that serves health checks and metrics."
    )
    check_timeout_s: float = setting(
        "OA_READY_CHECK_TIMEOUT_S", number(0.05, 60), 2.0, doc="Maximum time of one readiness check."
    )
    max_connections: int = setting(
        "OA_OPS_MAX_CONNECTIONS",
        integer(1, 1_000_000),
        256,
        doc="Maximum number of connections of health checks and metrics. A new one takes the place of the oldest that "
        "waits for no answer.",
    )


@dataclass(frozen=True, kw_only=True)
class GrpcServerSettings:
    """The gRPC port and its limits."""

    address: Address = setting("OA_GRPC_ADDRESS", address(), own_port("grpc"), doc="Address that serves gRPC.")
    max_message_bytes: int = setting(
        "OA_GRPC_MAX_MESSAGE_BYTES",
        integer(1024, 256 << 20),
        8 << 20,
        doc="Maximum size of a message in either direction.",
    )
    max_calls: int = setting(
        "OA_GRPC_MAX_CALLS",
        integer(1, 1_000_000),
        1000,
        doc="Maximum number of concurrent unary calls; more are refused. An org may have eight times as many as are "
        "free.",
    )
    max_streams: int = setting(
        "OA_GRPC_MAX_STREAMS",
        integer(1, 1_000_000),
        5000,
        doc="Maximum number of concurrent streams; more are refused. An org may have eight times as many as are free.",
    )
    max_watches_of_network: int = setting(
        "OA_GRPC_MAX_WATCHES_OF_NETWORK",
        integer(1, 1_000_000),
        200,
        doc="Maximum number of concurrent health watches from one network (IPv4 address or IPv6 /64), which need no "
        "identity; more are refused.",
    )
    max_connections: int = setting(
        "OA_GRPC_MAX_CONNECTIONS",
        integer(1, 1_000_000),
        10_000,
        doc="Maximum number of connections of a port; more are closed at once.",
    )
    max_calls_of_connection: int = setting(
        "OA_GRPC_MAX_CALLS_OF_CONNECTION",
        integer(1, 1_000_000),
        2000,
        doc="Maximum number of concurrent calls and streams on one connection; a client keeps back more of them.",
    )
    max_metadata_bytes: int = setting(
        "OA_GRPC_MAX_METADATA_BYTES",
        integer(8192, 1 << 20),
        16_384,
        doc="Maximum size of a call's metadata, with 32 bytes added for each entry (RFC 9113); more is refused.",
    )
    handshake_timeout_ms: int = setting(
        "OA_GRPC_HANDSHAKE_TIMEOUT_MS",
        integer(100, 600_000),
        10_000,
        doc="Maximum time from a connection's start until its TLS handshake and HTTP/2 settings are complete.",
    )
    idle_timeout_ms: int = setting(
        "OA_GRPC_IDLE_TIMEOUT_MS",
        integer(1000, 86_400_000),
        60_000,
        doc="How long a connection without a call stays open, or up to twice as long after its last call.",
    )
    request_timeout_ms: int = setting(
        "OA_GRPC_REQUEST_TIMEOUT_MS",
        integer(100, 600_000),
        15_000,
        doc="Maximum time from the start of a unary call until its request is complete.",
    )
    keepalive_interval_ms: int = setting(
        "OA_GRPC_KEEPALIVE_MS",
        integer(1000, 3_600_000),
        10_000,
        doc="Interval between keepalive pings on an open connection.",
    )
    keepalive_timeout_ms: int = setting(
        "OA_GRPC_KEEPALIVE_TIMEOUT_MS",
        integer(100, 600_000),
        5_000,
        doc="Maximum wait for the answer to a keepalive ping.",
    )
    stream_drain_s: float = setting(
        "OA_GRPC_STREAM_DRAIN_S",
        number(0, 600),
        2.0,
        doc="How long a drain waits for streams to end by themselves.",
        within=DRAIN_DEADLINE,
    )
    call_drain_s: float = setting(
        "OA_GRPC_CALL_DRAIN_S",
        number(0, 600),
        5.0,
        doc="How long a drain waits for unary calls to end.",
        within=DRAIN_DEADLINE,
    )


def doc_of_target(service: str) -> str:
    """The documentation of a setting for another service's address."""
    return f"Address of {service}. Calls are spread over all healthy addresses. Several only without certificates."


@dataclass(frozen=True, kw_only=True)
class GrpcClientSettings:
    """How other services are called."""

    max_message_bytes: int = setting(
        "OA_GRPC_MAX_MESSAGE_BYTES",
        integer(1024, 256 << 20),
        8 << 20,
        doc="Maximum size of a message in either direction.",
    )
    keepalive_interval_ms: int = setting(
        "OA_GRPC_KEEPALIVE_MS",
        integer(1000, 3_600_000),
        10_000,
        doc="Interval between keepalive pings on an open connection.",
    )
    keepalive_timeout_ms: int = setting(
        "OA_GRPC_KEEPALIVE_TIMEOUT_MS",
        integer(100, 600_000),
        5_000,
        doc="Maximum wait for the answer to a keepalive ping.",
    )
    connect_timeout_ms: int = setting(
        "OA_GRPC_CONNECT_TIMEOUT_MS",
        integer(100, 600_000),
        2_000,
        doc="Maximum time to connect, including the TLS handshake. A host that is gone may never answer.",
    )
    reconnect_min_ms: int = setting(
        "OA_GRPC_RECONNECT_MIN_MS", integer(10, 600_000), 100, doc="First pause before reconnecting."
    )
    reconnect_max_ms: int = setting(
        "OA_GRPC_RECONNECT_MAX_MS", integer(10, 600_000), 2_000, doc="Maximum pause before reconnecting."
    )
    resolve_min_ms: int = setting(
        "OA_GRPC_RESOLVE_MIN_MS",
        integer(10, 600_000),
        1_000,
        doc="Minimum pause between DNS lookups. A lookup happens when a connection ends or no server accepts calls.",
    )


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """How this service identifies itself to others, and whose calls it accepts."""

    service_token: Secret = setting(
        "OA_SERVICE_TOKEN", secret_text(), doc="Token that this service presents to the services that it calls."
    )
    accepted_services: Mapping[str, str] = setting(
        "OA_ACCEPTED_SERVICES",
        service_hashes(),
        DefaultFrom(lambda _service, _env: MappingProxyType({}), "none"),
        doc="Services that may call, each with the SHA-256 of its token; two of them while one token replaces the "
        "other.",
    )
    accepted_certificates: Mapping[str, str] = setting(
        "OA_ACCEPTED_CERTIFICATES",
        service_certificates(),
        DefaultFrom(lambda _service, _env: MappingProxyType({}), "none"),
        doc="Services that may call, each with a DNS name or URI of its certificate (subject alternative name).",
    )

    def production_problems(self) -> Iterator[Problem]:
        """A token that could be guessed."""
        return weak("OA_SERVICE_TOKEN", self.service_token.reveal())


def _reload_interval_ms() -> int:
    return setting(
        "OA_TLS_RELOAD_MS",
        integer(10, 3_600_000),
        10_000,
        doc="Pause between checks of the certificate files. A changed certificate takes effect without a restart.",
    )


OR_PLAIN = ", or OA_ALLOW_PLAINTEXT=true where the network protects what is said"


def without_certificate(what: str, needed: str) -> str:
    """What is wrong with a connection beyond loopback for which the variable `needed` gives no certificate."""
    return f"{what}, which isn't loopback, and there is no certificate; set {needed}{OR_PLAIN}"


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The service's own certificate, which it shows to other services, and the rules without one."""

    cert_file: Path | None = setting(
        "OA_TLS_CERT_FILE",
        path(),
        None,
        doc="Certificate of this service and the chain above it (PEM), for its use as a server and as a client.",
    )
    key_file: Path | None = setting(
        "OA_TLS_KEY_FILE", path(), None, doc="Private key of OA_TLS_CERT_FILE (PEM, unencrypted, not world-readable)."
    )
    ca_file: Path | None = setting(
        "OA_TLS_CA_FILE", path(), None, doc="Certificates of the authorities of all services (PEM)."
    )
    allow_plaintext: bool = setting(
        "OA_ALLOW_PLAINTEXT",
        boolean(),
        False,
        doc="Allow connecting and listening without TLS beyond loopback if there is no certificate. Each such "
        "address is logged.",
    )
    reload_interval_ms: int = _reload_interval_ms()

    def open_listener(self, at: Address, variable: str, certificate: Path | None, needed: str) -> Iterator[Problem]:
        """The problem with an address beyond loopback at which nothing protects what is said. `certificate`: the one
        that the listener has, from the variable `needed`."""
        if certificate is None and not self.allow_plaintext and not at.is_loopback:
            yield variable, without_certificate(f"{variable} is {at}", needed)


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How live frames get from their sources to the gateways."""

    nats_url: Secret | None = setting(
        "OA_FRAMES_NATS_URL",
        nats_url(),
        None,
        doc="NATS server that carries live frames, once for all gateways. It is used if both the source and the "
        "gateway set it. Otherwise each gateway gets a stream of its own.",
    )


@dataclass(frozen=True, kw_only=True)
class EdgeTlsSettings:
    """The certificate for outside callers: of the public edge, Khala's port, and the port of workers."""

    cert_file: Path | None = setting(
        "OA_EDGE_TLS_CERT_FILE", path(), None, doc="Certificate and the chain above it (PEM) for outside callers."
    )
    key_file: Path | None = setting(
        "OA_EDGE_TLS_KEY_FILE",
        path(),
        None,
        doc="Private key of OA_EDGE_TLS_CERT_FILE (PEM, unencrypted, not world-readable).",
    )
    reload_interval_ms: int = _reload_interval_ms()


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """The proxies in front of a public port."""

    trusted: Sequence[IpNetwork] = setting(
        "OA_TRUSTED_PROXIES",
        networks(),
        DefaultFrom(lambda _service, _env: (), "none"),
        doc="Networks of the proxies in front of the service. X-Forwarded-For is trusted only from them.",
    )


def _control_url() -> DefaultFrom[str]:
    return DefaultFrom(
        lambda _, env: f"http://127.0.0.1:{default_port('control_http', env)}", "http://127.0.0.1, OA_PORT_BASE"
    )


@dataclass(frozen=True, kw_only=True)
class QuarantineSettings:
    """How long, and how many, things are left out by a background task that can't handle them because of a defect."""

    retry_s: float = setting(
        "OA_QUARANTINE_RETRY_S",
        number(0.05, 86_400),
        60.0,
        doc="Pause before a background task tries a run again that it could not handle because of a defect.",
    )
    max_things: int = setting(
        "OA_QUARANTINE_THINGS",
        integer(1, 1_000_000),
        1_000,
        doc="Maximum number of runs that a background task leaves out at a time; the oldest makes room.",
    )


@dataclass(frozen=True, kw_only=True)
class JwksSettings:
    """The source of control's public keys."""

    control_url: str = setting("OA_CONTROL_URL", http_url(), _control_url(), doc="URL of control's public edge.")
    cache_file: Path | None = setting(
        "OA_JWKS_CACHE_FILE",
        path(),
        None,
        doc="File that caches the keys, so that tokens can be verified after a restart while control is down.",
    )
    refresh_interval_s: float = setting(
        "OA_JWKS_REFRESH_S",
        number(1, 86_400),
        300.0,
        doc="Interval between refreshes of the keys. It must be less than OA_SIGNING_KEY_PUBLISHED_S of control.",
    )
    min_refresh_interval_s: float = setting(
        "OA_JWKS_MIN_REFRESH_S",
        number(0.05, 3600),
        2.0,
        doc="Minimum pause between fetches, also for an unknown key id; at most OA_JWKS_REFRESH_S.",
    )
    fetch_timeout_s: float = setting(
        "OA_JWKS_FETCH_TIMEOUT_S", number(0.05, 60), 3.0, doc="Maximum time to fetch the keys."
    )

    def problems(self) -> Iterator[Problem]:
        """A pause that makes refreshes come later than they are said to, so that a new key may sign before."""
        if self.min_refresh_interval_s > self.refresh_interval_s:
            text = (
                f"OA_JWKS_MIN_REFRESH_S ({self.min_refresh_interval_s:g}) is longer than OA_JWKS_REFRESH_S "
                f"({self.refresh_interval_s:g}), so the keys would be fetched too late for a rotation; lower it"
            )
            yield "OA_JWKS_MIN_REFRESH_S", text

    def production_problems(self) -> Iterator[Problem]:
        """Keys that come over a network on which anybody could replace them."""
        parts = urlsplit(self.control_url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            text = "OA_CONTROL_URL is plain http to another machine, whose word on tokens is believed; use https"
            yield "OA_CONTROL_URL", text


@dataclass(frozen=True, kw_only=True)
class RevocationSettings:
    """The source of revocations."""

    control: Target = setting("OA_CONTROL_GRPC", target(), peer_port("control_grpc"), doc=doc_of_target("control"))


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """The pool of database connections, and the maximum duration of work with the database."""

    url: Secret = setting(
        "OA_DATABASE_URL",
        postgres_url(),
        doc="URL of the database, with the service's own role. Of several hosts, the one that accepts writes is used.",
    )
    may_lose_commits: bool = setting(
        "OA_DATABASE_MAY_LOSE_COMMITS",
        boolean(),
        False,
        doc="Work on a server that may lose what it has acknowledged, because `fsync`, `full_page_writes` or "
        "`synchronous_commit` is off. Without this it is refused.",
    )
    pool_min: int = setting(
        "OA_DATABASE_POOL_MIN", integer(0, 1000), 2, doc="Minimum number of connections that are kept open."
    )
    pool_max: int = setting("OA_DATABASE_POOL_MAX", integer(1, 1000), 10, doc="Maximum number of connections.")
    connect_timeout_s: float = setting(
        "OA_DATABASE_CONNECT_TIMEOUT_S", number(0.1, 60), 3.0, doc="Maximum time of one attempt to connect to one host."
    )
    start_timeout_s: float = setting(
        "OA_DATABASE_START_TIMEOUT_S",
        number(0, 600),
        15.0,
        doc="Maximum time that the service waits for the database at its start.",
    )
    acquire_timeout_s: float = setting(
        "OA_DATABASE_ACQUIRE_TIMEOUT_S", number(0.01, 60), 3.0, doc="Maximum wait for a free connection."
    )
    statement_timeout_ms: int = setting(
        "OA_DATABASE_STATEMENT_TIMEOUT_MS", integer(1, 600_000), 10_000, doc="Maximum run time of a statement."
    )
    lock_timeout_ms: int = setting(
        "OA_DATABASE_LOCK_TIMEOUT_MS", integer(1, 600_000), 5_000, doc="Maximum wait for a lock."
    )
    idle_transaction_timeout_ms: int = setting(
        "OA_DATABASE_IDLE_TRANSACTION_TIMEOUT_MS",
        integer(1, 600_000),
        10_000,
        doc="Maximum idle time inside a transaction.",
    )
    watch_ms: int = setting(
        "OA_DATABASE_WATCH_MS",
        integer(10, 600_000),
        2_000,
        doc="Interval between checks that the server still accepts writes and makes them durable.",
    )
    silent_s: float = setting(
        "OA_DATABASE_SILENT_S",
        number(0.1, 600),
        5.0,
        doc="Time without any success at the database after which gRPC health says NOT_SERVING, so that callers use "
        "other replicas. The next success ends this.",
    )
    no_room_s: float = setting(
        "OA_DATABASE_NO_ROOM_S",
        number(0.1, 3600),
        15.0,
        doc="How long a service stays unready after the database last failed to store something (disk full).",
    )
    check_migrations: bool = setting(
        "OA_DATABASE_CHECK_MIGRATIONS", boolean(), True, doc="Refuse to start if the schema has another version."
    )


CLOCK_LEEWAY_MS = 5_000
"""Tokens are verified as if this service's clock could be wrong by this much, in either direction."""


@dataclass(frozen=True, kw_only=True)
class ClockSettings:
    """How far the clocks of two machines may differ.

    Two services that are both ready may be twice `max_skew_ms` apart, which must not be more than `leeway_ms`.
    """

    leeway_ms: int = setting(
        "OA_CLOCK_LEEWAY_MS",
        integer(0, 600_000),
        CLOCK_LEEWAY_MS,
        doc="Maximum clock error that is tolerated when a token is verified. A revocation ends tokens whose times are "
        "up to twice this ahead.",
    )
    max_skew_ms: int = setting(
        "OA_CLOCK_SKEW_MAX_MS",
        integer(1, 600_000),
        2_000,
        doc="Maximum difference from the clock of Postgres or control; a service that differs by more is not ready. At "
        "most half of OA_CLOCK_LEEWAY_MS.",
    )

    def problems(self) -> Iterator[Problem]:
        """A difference at which both are ready and refuse each other's tokens."""
        if 2 * self.max_skew_ms > self.leeway_ms:
            text = (
                f"OA_CLOCK_SKEW_MAX_MS ({self.max_skew_ms}) is more than half of OA_CLOCK_LEEWAY_MS "
                f"({self.leeway_ms}), so two services that are ready could refuse each other's tokens; lower it, or "
                "raise the leeway"
            )
            yield "OA_CLOCK_SKEW_MAX_MS", text


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """The settings of every service; each derives its own class from this one and sets `service`."""

    service: ClassVar[str] = ""
    log: LogSettings = group(LogSettings)
    process: ProcessSettings = group(ProcessSettings)
    ops: OpsSettings = group(OpsSettings)
    grpc: GrpcServerSettings = group(GrpcServerSettings)
    identity: IdentitySettings = group(IdentitySettings)
    clock: ClockSettings = group(ClockSettings)
    tls: TlsSettings = group(TlsSettings)

    @property
    def production(self) -> bool:
        """Whether somebody depends on the service."""
        return self.process.environment == PRODUCTION

    def problems(self) -> Iterator[Problem]:
        """Ports that anybody could listen in on, and settings that production refuses."""
        for variable, at in (("OA_OPS_ADDRESS", self.ops.address), ("OA_GRPC_ADDRESS", self.grpc.address)):
            yield from self.tls.open_listener(at, variable, self.tls.cert_file, "OA_TLS_CERT_FILE")
        if self.production:
            yield from production_problems(self)


def token_hash(token: str) -> str:
    """The form of a service token in OA_ACCEPTED_SERVICES: SHA-256 in hex. Service tokens are long random texts."""
    return hashlib.sha256(token.encode()).hexdigest()
