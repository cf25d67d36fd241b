"""Settings of the parts that HTTP clients use: the edge, how often they may call it, and what answers web requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oa_base.rate import Rate
from oa_base.version import VERSION
from oa_platform.config.loading import DefaultFrom, own_port, setting
from oa_platform.config.parsers import Address, Parser, address, http_url, integer, number, path, web_origins
from oa_platform.config.shared import DRAIN_DEADLINE
from services.control.edge.domain import ClientWindow, Version
from services.control.edge.limits import CallClass, EdgeLimits
from services.control.routes.limits import LegacyLimits


def folders() -> Parser[Sequence[Path]]:
    """Folders, separated by commas."""

    def parse(given: str) -> Sequence[Path]:
        return tuple(path().parse(part.strip()) for part in given.split(","))

    return Parser(parse, "a list of folders like /srv/web/41,/srv/web/40")


def client_version() -> Parser[Version]:
    """The version of a release that is not newer than this one."""

    def parse(given: str) -> Version:
        version = Version.of(given)
        if version > Version.of(VERSION):
            raise ValueError
        return version

    return Parser(parse, f"a version like 0.1.0 that is not above {VERSION}, this release's own")


def _calls_per_s(kind: str, default: float, what: str) -> float:
    return setting(f"OA_CALLS_{kind}_PER_S", number(0.001, 1_000_000), default, doc=f"Sustained {what} per second.")


def _calls_at_once(kind: str, default: int, what: str) -> int:
    return setting(f"OA_CALLS_{kind}_BURST", integer(1, 1_000_000), default, doc=f"Maximum burst of {what}.")


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """The public HTTP edge and its limits."""

    address: Address = setting(
        "OA_HTTP_ADDRESS", address(), own_port("http"), doc="Address that serves the public edge."
    )
    allowed_origins: Sequence[str] = setting(
        "OA_ALLOWED_ORIGINS",
        web_origins(),
        DefaultFrom(lambda _service, _env: (), "none"),
        doc="Web origins whose pages may call the edge.",
    )
    max_body_bytes: int = setting(
        "OA_HTTP_MAX_BODY_BYTES", integer(1024, 64 << 20), 1 << 20, doc="Maximum size of a request."
    )
    max_head_bytes: int = setting(
        "OA_HTTP_MAX_HEAD_BYTES", integer(1024, 1 << 20), 16 << 10, doc="Maximum size of a request's line and headers."
    )
    head_timeout_s: float = setting(
        "OA_HTTP_HEAD_TIMEOUT_S", number(0.05, 600), 10.0, doc="Maximum time for a request's headers to arrive."
    )
    body_timeout_s: float = setting(
        "OA_HTTP_BODY_TIMEOUT_S", number(0.05, 600), 15.0, doc="Maximum time for a request's body to arrive."
    )
    answer_timeout_s: float = setting(
        "OA_HTTP_ANSWER_TIMEOUT_S",
        number(0.05, 600),
        60.0,
        doc="Maximum time for which a caller takes nothing of an answer that waits for it. Linux has this limit.",
    )
    call_timeout_s: float = setting(
        "OA_HTTP_CALL_TIMEOUT_S",
        number(0.05, 600),
        30.0,
        doc="Maximum time for a call, even if Connect-Timeout-Ms asks for more.",
    )
    min_body_bytes_per_s: int = setting(
        "OA_HTTP_MIN_BODY_BYTES_PER_S",
        integer(1, 1 << 30),
        4096,
        doc="Minimum average speed of a body after its first 5 seconds.",
    )
    max_calls: int = setting(
        "OA_HTTP_MAX_CALLS",
        integer(1, 100_000),
        512,
        doc="Maximum number of concurrent calls with a token. One org gets at most eight ninths.",
    )
    max_calls_of_one: int = setting(
        "OA_HTTP_MAX_CALLS_OF_ONE",
        integer(1, 100_000),
        128,
        doc="Maximum number of concurrent calls by one person or service account.",
    )
    max_anonymous_calls: int = setting(
        "OA_HTTP_MAX_ANONYMOUS_CALLS",
        integer(1, 100_000),
        128,
        doc="Maximum number of concurrent calls without a token.",
    )
    max_anonymous_calls_of_network: int = setting(
        "OA_HTTP_MAX_ANONYMOUS_CALLS_OF_NETWORK",
        integer(1, 100_000),
        64,
        doc="Maximum number of concurrent calls without a token from one network, including calls whose body is "
        "still arriving.",
    )
    max_connections: int = setting(
        "OA_HTTP_MAX_CONNECTIONS", integer(1, 1_000_000), 8192, doc="Maximum number of connections."
    )
    max_connections_of_network: int = setting(
        "OA_HTTP_MAX_CONNECTIONS_OF_NETWORK",
        integer(1, 1_000_000),
        512,
        doc="Maximum number of connections from one network. Trusted proxies are exempt.",
    )
    keep_alive_s: float = setting(
        "OA_HTTP_KEEP_ALIVE_S",
        number(0.05, 86_400),
        30.0,
        doc="How long a connection without a request stays open. A proxy in front must close its own sooner.",
    )
    drain_s: float = setting(
        "OA_HTTP_DRAIN_S",
        number(0.1, 600),
        5.0,
        doc="How long a drain waits for calls to end.",
        within=DRAIN_DEADLINE,
    )

    lowest_client: Version | None = setting(
        "OA_CLIENT_VERSION_MIN",
        client_version(),
        None,
        doc="Oldest version of oa, workers and client libraries that is served. An older one gets status 426 and "
        "the range of versions that are served. If it is not set, the edge does not check versions.",
    )

    @property
    def clients(self) -> ClientWindow | None:
        """The versions of clients that are served; None for all."""
        return ClientWindow(self.lowest_client, Version.of(VERSION)) if self.lowest_client else None

    def limits(self, rates: Mapping[CallClass, Rate]) -> EdgeLimits:
        """The limits in the form that the edge takes."""
        return EdgeLimits(
            max_calls=self.max_calls,
            max_body_bytes=self.max_body_bytes,
            body_timeout_s=self.body_timeout_s,
            min_body_bytes_per_s=self.min_body_bytes_per_s,
            call_timeout_s=self.call_timeout_s,
            max_calls_of_one=self.max_calls_of_one,
            max_anonymous_calls=self.max_anonymous_calls,
            max_anonymous_calls_of_network=self.max_anonymous_calls_of_network,
            rates=rates,
        )


@dataclass(frozen=True, kw_only=True)
class CallRateSettings:
    """How often one caller may call, on each replica."""

    reads_per_s: float = _calls_per_s("READS", 200, "reads by one person or service account")
    reads_burst: int = _calls_at_once("READS", 2000, "reads by one person or service account")
    writes_per_s: float = _calls_per_s("WRITES", 100, "writes by one person or service account")
    writes_burst: int = _calls_at_once("WRITES", 1000, "writes by one person or service account")
    mints_per_s: float = _calls_per_s("MINTS", 50, "sync tokens for one person or service account")
    mints_burst: int = _calls_at_once("MINTS", 500, "sync tokens for one person or service account")
    public_per_s: float = _calls_per_s("PUBLIC", 50, "calls without a valid token from one network")
    public_burst: int = _calls_at_once("PUBLIC", 2000, "calls without a valid token from one network")

    def rates(self) -> Mapping[CallClass, Rate]:
        """The rates in the form that the edge takes."""
        return {
            CallClass.READ: Rate.per_second(self.reads_per_s, self.reads_burst),
            CallClass.WRITE: Rate.per_second(self.writes_per_s, self.writes_burst),
            CallClass.MINT: Rate.per_second(self.mints_per_s, self.mints_burst),
            CallClass.PUBLIC: Rate.per_second(self.public_per_s, self.public_burst),
        }


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """What answers web requests: the built-in shell, a legacy upstream, or both."""

    root: Path | None = setting(
        "OA_WEB_ROOT", path(), None, doc="Folder of the web shell's release. If it is not set, no shell is served."
    )
    previous_roots: Sequence[Path] = setting(
        "OA_WEB_PREVIOUS_ROOTS",
        folders(),
        DefaultFrom(lambda _service, _env: (), "none"),
        doc="Folders of earlier releases, newest first. Pages that are still open load their files from them.",
    )
    legacy_url: str | None = setting(
        "OA_LEGACY_URL",
        http_url(),
        None,
        doc="URL of the legacy side: an HTTP server that answers the paths that route groups assign to it. If it "
        "is not set, there is none.",
    )
    legacy_max_requests: int = setting(
        "OA_LEGACY_MAX_REQUESTS",
        integer(1, 100_000),
        256,
        doc="Maximum number of concurrent requests to the legacy side.",
    )
    legacy_max_requests_of_network: int = setting(
        "OA_LEGACY_MAX_REQUESTS_OF_NETWORK",
        integer(1, 100_000),
        64,
        doc="Maximum number of concurrent requests from one network to the legacy side.",
    )
    legacy_max_body_bytes: int = setting(
        "OA_LEGACY_MAX_BODY_BYTES",
        integer(1024, 1 << 40),
        32 << 20,
        doc="Maximum size of a request to the legacy side.",
    )
    legacy_connect_timeout_s: float = setting(
        "OA_LEGACY_CONNECT_TIMEOUT_S",
        number(0.05, 600),
        5.0,
        doc="Maximum time to connect to the legacy side.",
    )
    legacy_idle_timeout_s: float = setting(
        "OA_LEGACY_IDLE_TIMEOUT_S",
        number(0.05, 3600),
        60.0,
        doc="Maximum time without a byte of a request to the legacy side, or of its answer's body, and maximum time "
        "from the end of the request to the end of the answer's headers.",
    )

    def legacy_limits(self) -> LegacyLimits:
        """The limits in the form that the proxy takes."""
        return LegacyLimits(
            max_requests=self.legacy_max_requests,
            max_requests_of_network=self.legacy_max_requests_of_network,
            max_body_bytes=self.legacy_max_body_bytes,
            connect_timeout_s=self.legacy_connect_timeout_s,
            idle_timeout_s=self.legacy_idle_timeout_s,
        )
