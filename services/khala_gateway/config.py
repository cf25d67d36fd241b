"""The gateway's settings; docs/config.md is generated from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from oa_khala.feed import FeedLimits
from oa_khala.server.limits import SessionLimits
from oa_platform.config.handshakes import HandshakeSettings
from oa_platform.config.loading import Problem, group, own_port, peer_port, setting
from oa_platform.config.parsers import (
    Address,
    IpNetwork,
    Target,
    address,
    boolean,
    integer,
    number,
    target,
    web_origins,
)
from oa_platform.config.shared import (
    DRAIN_DEADLINE,
    EdgeTlsSettings,
    FrameSettings,
    GrpcClientSettings,
    JwksSettings,
    ProxySettings,
    RevocationSettings,
    ServiceSettings,
    doc_of_target,
)
from services.khala_gateway.admission.limits import AdmissionLimits
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sockets.limits import PortLimits, SocketLimits
from services.khala_gateway.sources.limits import SourceLimits

_HOUR_MS = 3_600_000


def _ms(variable: str, default: int, doc: str, *, minimum: int = 1, within: str = "") -> int:
    return setting(variable, integer(minimum, _HOUR_MS), default, doc=doc, within=within)


def _count(variable: str, default: int, doc: str) -> int:
    return setting(variable, integer(1, 1_000_000), default, doc=doc)


@dataclass(frozen=True, kw_only=True)
class SocketSettings:
    """The WebSocket port."""

    address: Address = setting("OA_WS_ADDRESS", address(), own_port("ws"), doc="Address that serves WebSockets.")
    allowed_origins: Sequence[str] = setting(
        "OA_ALLOWED_ORIGINS",
        web_origins(),
        (),
        doc="Origins whose pages may connect. A client that sends no Origin is not a page and may connect.",
    )
    max_connections: int = setting(
        "OA_WS_MAX_CONNECTIONS",
        integer(1, 1_000_000),
        10_000,
        doc="Maximum number of connections; more are refused as `overloaded`. One org gets at most eight ninths.",
    )
    handshake_burst: int = setting(
        "OA_WS_HANDSHAKE_BURST",
        integer(1, 1_000_000),
        1_000,
        doc="Maximum burst of handshakes; more are refused as `overloaded`.",
    )
    handshakes_per_s: int = setting(
        "OA_WS_HANDSHAKES_PER_S", integer(1, 1_000_000), 500, doc="Sustained handshakes per second."
    )
    handshake_burst_per_address: int = _count(
        "OA_WS_HANDSHAKE_BURST_PER_ADDRESS",
        200,
        "Maximum burst of handshakes from one address (IPv4 address or IPv6 /64); more are refused as `rate_limited`.",
    )
    handshakes_per_s_per_address: int = _count(
        "OA_WS_HANDSHAKES_PER_S_PER_ADDRESS", 50, "Sustained handshakes per second from one address."
    )
    connections_per_address: int = _count(
        "OA_WS_CONNECTIONS_PER_ADDRESS",
        1_000,
        "Maximum number of connections from one address; more are refused as `rate_limited`.",
    )
    waiting_per_address: int = _count(
        "OA_WS_WAITING_PER_ADDRESS",
        200,
        "Maximum number of TCP connections from one address (IPv4 address or IPv6 /64) that have not sent a request; "
        "more are closed. Connections from trusted proxies don't count.",
    )
    addresses: int = _count("OA_WS_ADDRESSES", 10_000, "Maximum number of addresses whose handshakes are remembered.")
    connections_per_session: int = _count(
        "OA_WS_CONNECTIONS_PER_SESSION",
        32,
        "Maximum number of connections of one session; more are refused as `rate_limited`.",
    )
    connections_per_principal: int = _count(
        "OA_WS_CONNECTIONS_PER_PRINCIPAL",
        256,
        "Maximum number of connections of one person or service account; more are refused as `rate_limited`.",
    )
    handshake_deadline_ms: int = _ms("OA_WS_HANDSHAKE_DEADLINE_MS", 5_000, "Maximum wait for the opening request.")
    max_request_bytes: int = setting(
        "OA_WS_MAX_REQUEST_BYTES",
        integer(1024, 1 << 20),
        16 * 1024,
        doc="Maximum size of the opening request with its headers, in bytes.",
    )
    close_timeout_ms: int = _ms(
        "OA_WS_CLOSE_TIMEOUT_MS", 3_000, "Maximum time for the closing handshake.", within=DRAIN_DEADLINE
    )
    drain_window_ms: int = _ms(
        "OA_WS_DRAIN_WINDOW_MS",
        3_000,
        "Time over which a drain spreads the closing of connections.",
        minimum=0,
        within=DRAIN_DEADLINE,
    )
    linger_ms: int = _ms(
        "OA_WS_LINGER_MS",
        30_000,
        "How long a client that was closed as too slow may still read what was written to it.",
    )
    write_high_bytes: int = setting(
        "OA_WS_WRITE_HIGH_BYTES",
        integer(1024, 1 << 30),
        256 * 1024,
        doc="Buffered bytes of a socket above which nothing more is written to it.",
    )
    write_low_bytes: int = setting(
        "OA_WS_WRITE_LOW_BYTES",
        integer(0, 1 << 30),
        64 * 1024,
        doc="Buffered bytes of a socket below which writing resumes.",
    )

    answers_bytes: int = setting(
        "OA_WS_ANSWERS_BYTES",
        integer(0, 1 << 30),
        16 * 1024,
        doc="Maximum size of the answers to a client that takes nothing; beyond it, the gateway stops reading from the "
        "client.",
    )
    send_buffer_bytes: int = setting(
        "OA_WS_SEND_BUFFER_BYTES",
        integer(4096, 1 << 30),
        256 * 1024,
        doc="Maximum number of written bytes that the system keeps for a socket (`SO_SNDBUF`).",
    )
    unsent_bytes: int = setting(
        "OA_WS_UNSENT_BYTES",
        integer(1024, 1 << 30),
        64 * 1024,
        doc="Maximum number of written bytes of a socket that may be unsent (`TCP_NOTSENT_LOWAT`).",
    )
    deflate: bool = setting(
        "OA_WS_DEFLATE",
        boolean(),
        False,
        doc="Whether clients that offer permessage-deflate get compressed messages.",
    )
    deflate_from_bytes: int = setting(
        "OA_WS_DEFLATE_FROM_BYTES",
        integer(0, 1 << 20),
        512,
        doc="Minimum size of a payload that is compressed, if OA_WS_DEFLATE is set.",
    )

    def limits(self, max_frame_bytes: int, trusted: Sequence[IpNetwork], max_handshakes_of_network: int) -> PortLimits:
        """The limits for the port; `trusted` are our own proxies in front of it."""
        return PortLimits(
            socket=SocketLimits(
                max_frame_bytes=max_frame_bytes,
                max_request_bytes=self.max_request_bytes,
                handshake_deadline_ms=self.handshake_deadline_ms,
                close_timeout_ms=self.close_timeout_ms,
                linger_ms=self.linger_ms,
                write_high_bytes=self.write_high_bytes,
                write_low_bytes=self.write_low_bytes,
                answers_bytes=self.answers_bytes,
                send_buffer_bytes=self.send_buffer_bytes,
                unsent_bytes=self.unsent_bytes,
                deflate_from_bytes=self.deflate_from_bytes if self.deflate else None,
            ),
            drain_window_ms=self.drain_window_ms,
            trusted=trusted,
            max_handshakes_of_network=max_handshakes_of_network,
        )

    def admission(self) -> AdmissionLimits:
        """The limits for admission."""
        return AdmissionLimits(
            max_connections=self.max_connections,
            handshake_burst=self.handshake_burst,
            handshakes_per_s=self.handshakes_per_s,
            handshake_burst_per_address=self.handshake_burst_per_address,
            handshakes_per_s_per_address=self.handshakes_per_s_per_address,
            connections_per_address=self.connections_per_address,
            waiting_per_address=self.waiting_per_address,
            addresses=self.addresses,
            connections_per_session=self.connections_per_session,
            connections_per_principal=self.connections_per_principal,
        )


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """One connection."""

    hello_deadline_ms: int = _ms("OA_KHALA_HELLO_DEADLINE_MS", 5_000, "Maximum wait for the first frame.")
    heartbeat_interval_ms: int = _ms("OA_KHALA_HEARTBEAT_MS", 25_000, "Interval between HEARTBEAT frames.")
    idle_timeout_ms: int = _ms("OA_KHALA_IDLE_TIMEOUT_MS", 60_000, "Maximum silence of a client.")
    slow_consumer_ms: int = _ms(
        "OA_KHALA_SLOW_CONSUMER_MS", 30_000, "Maximum time during which a client takes no byte of what waits for it."
    )
    max_topics: int = setting(
        "OA_KHALA_MAX_TOPICS", integer(1, 128), 128, doc="Maximum number of topics on a connection."
    )
    max_frame_bytes: int = setting(
        "OA_KHALA_MAX_FRAME_BYTES", integer(1024, 1 << 20), 64 * 1024, doc="Maximum size of a message from a client."
    )
    max_pipelined_frames: int = setting(
        "OA_KHALA_MAX_PIPELINED_FRAMES",
        integer(1, 1000),
        16,
        doc="Maximum number of frames that wait while a token is verified. Further ones are not read before that.",
    )
    snapshot_part_bytes: int = setting(
        "OA_KHALA_SNAPSHOT_PART_BYTES",
        integer(1024, 4 << 20),
        256 * 1024,
        doc="Maximum size of one part of a snapshot, for clients that accept parts.",
    )
    subscribe_burst: int = setting(
        "OA_KHALA_SUBSCRIBE_BURST",
        integer(1, 100_000),
        256,
        doc="Maximum burst of topics that a connection may subscribe to.",
    )
    subscribe_per_s: int = setting(
        "OA_KHALA_SUBSCRIBE_PER_S", integer(1, 100_000), 64, doc="Sustained subscriptions to topics per second."
    )

    def limits(self) -> SessionLimits:
        """The limits for sessions."""
        return SessionLimits(
            hello_deadline_ms=self.hello_deadline_ms,
            heartbeat_interval_ms=self.heartbeat_interval_ms,
            idle_timeout_ms=self.idle_timeout_ms,
            slow_consumer_ms=self.slow_consumer_ms,
            max_topics=self.max_topics,
            max_frame_bytes=self.max_frame_bytes,
            max_pipelined_frames=self.max_pipelined_frames,
            snapshot_part_bytes=self.snapshot_part_bytes,
            subscribe_burst=self.subscribe_burst,
            subscribe_per_s=self.subscribe_per_s,
        )


@dataclass(frozen=True, kw_only=True)
class FeedSettings:
    """The topics that are held, and how they are delivered."""

    ring_events: int = setting(
        "OA_FEED_RING_EVENTS",
        integer(1, 1 << 20),
        1_024,
        doc="Maximum number of a topic's newest frames that are kept in memory.",
    )
    ring_bytes: int = setting(
        "OA_FEED_RING_BYTES",
        integer(1, 1 << 30),
        4 << 20,
        doc="Maximum size of a topic's newest frames that are kept in memory.",
    )
    parked_events: int = setting(
        "OA_FEED_PARKED_EVENTS",
        integer(0, 1 << 20),
        1_024,
        doc="Maximum number of a topic's frames that wait behind a hole.",
    )
    parked_bytes: int = setting(
        "OA_FEED_PARKED_BYTES",
        integer(0, 1 << 30),
        1 << 20,
        doc="Maximum size of a topic's frames that wait behind a hole.",
    )
    slice_frames: int = setting(
        "OA_FEED_SLICE_FRAMES", integer(1, 10_000), 50, doc="Maximum number of frames in one write."
    )
    slice_bytes: int = setting("OA_FEED_SLICE_BYTES", integer(1, 1 << 24), 64 * 1024, doc="Maximum size of one write.")
    page_frames: int = setting(
        "OA_FEED_PAGE_FRAMES", integer(1, 5_000), 500, doc="Maximum number of frames in a page of history."
    )
    page_bytes: int = setting(
        "OA_FEED_PAGE_BYTES", integer(1, 4 << 20), 256 * 1024, doc="Maximum size of a page of history."
    )
    kept_pages_bytes: int = setting(
        "OA_FEED_KEPT_PAGES_BYTES",
        integer(0, 1 << 30),
        16 << 20,
        doc="Maximum size of the pages of history that are kept for other clients that want them at the same time.",
    )
    kept_pages_ms: int = _ms("OA_FEED_KEPT_PAGES_MS", 5_000, "How long a page of history is kept for other clients.")
    linger_ms: int = _ms("OA_FEED_LINGER_MS", 10_000, "How long a topic is kept after its last subscriber has left.")
    carry_timeout_ms: int = _ms("OA_FEED_CARRY_TIMEOUT_MS", 10_000, "Maximum wait until a source carries a topic.")
    audit_interval_ms: int = _ms(
        "OA_FEED_AUDIT_MS", 30_000, "Interval between checks of the topics' positions at their sources."
    )
    concurrent_repairs: int = setting(
        "OA_FEED_CONCURRENT_REPAIRS",
        integer(1, 1000),
        16,
        doc="Maximum number of concurrent repairs of holes from one source.",
    )
    concurrent_confirmations: int = setting(
        "OA_FEED_CONCURRENT_CONFIRMATIONS",
        integer(1, 10_000),
        64,
        doc="Maximum number of concurrent questions to one source about cursors.",
    )
    concurrent_replays: int = setting(
        "OA_FEED_CONCURRENT_REPLAYS",
        integer(1, 10_000),
        64,
        doc="Maximum number of concurrent reads of pages of history from one source. Orgs have their turns.",
    )
    concurrent_snapshots: int = setting(
        "OA_FEED_CONCURRENT_SNAPSHOTS",
        integer(1, 10_000),
        8,
        doc="Maximum number of concurrent reads of snapshots from one source.",
    )
    list_snapshot_bytes: int = setting(
        "OA_FEED_LIST_SNAPSHOT_BYTES",
        integer(1024, 2 << 20),
        2 << 20,
        doc="Maximum size of a list's snapshot for clients that accept parts. Older elements are left out.",
    )
    snapshot_max_bytes: int = setting(
        "OA_FEED_SNAPSHOT_MAX_BYTES", integer(1024, 1 << 28), 6 << 20, doc="Maximum size of any snapshot."
    )
    kept_snapshots_bytes: int = setting(
        "OA_FEED_KEPT_SNAPSHOTS_BYTES",
        integer(0, 1 << 30),
        16 << 20,
        doc="Maximum size of the snapshots that are kept for other clients that want them at the same time.",
    )
    kept_snapshots_ms: int = _ms("OA_FEED_KEPT_SNAPSHOTS_MS", 5_000, "How long a snapshot is kept for other clients.")
    flush_tick_ms: float = setting(
        "OA_FEED_FLUSH_TICK_MS",
        number(0, 1000),
        5.0,
        doc="Minimum pause between two flushes. Frames that arrive in between are sent together.",
    )

    def limits(self) -> HubLimits:
        """The limits for the hub."""
        return HubLimits(
            feed=FeedLimits(
                ring_events=self.ring_events,
                ring_bytes=self.ring_bytes,
                parked_events=self.parked_events,
                parked_bytes=self.parked_bytes,
            ),
            slice_frames=self.slice_frames,
            slice_bytes=self.slice_bytes,
            linger_ms=self.linger_ms,
            carry_timeout_ms=self.carry_timeout_ms,
            page_frames=self.page_frames,
            page_bytes=self.page_bytes,
            kept_pages_bytes=self.kept_pages_bytes,
            kept_pages_ms=self.kept_pages_ms,
            concurrent_repairs=self.concurrent_repairs,
            concurrent_confirmations=self.concurrent_confirmations,
            concurrent_replays=self.concurrent_replays,
            concurrent_snapshots=self.concurrent_snapshots,
            list_snapshot_bytes=self.list_snapshot_bytes,
            snapshot_max_bytes=self.snapshot_max_bytes,
            kept_snapshots_bytes=self.kept_snapshots_bytes,
            kept_snapshots_ms=self.kept_snapshots_ms,
            audit_interval_ms=self.audit_interval_ms,
        )


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings:
    """Where topics come from."""

    runtime: Target = setting("OA_RUNTIME_GRPC", target(), peer_port("runtime_grpc"), doc=doc_of_target("runtime"))
    projector: Target = setting(
        "OA_PROJECTOR_GRPC", target(), peer_port("projector_grpc"), doc=doc_of_target("projector")
    )
    ask_interval_ms: int = _ms("OA_UPSTREAM_ASK_MS", 2_000, "Interval between checks that a source answers.")
    answer_ms: int = _ms(
        "OA_UPSTREAM_ANSWER_MS",
        3_000,
        "Maximum wait for a source's answer to a check. After it the source counts as away.",
    )
    check_ms: int = _ms(
        "OA_UPSTREAM_CHECK_MS", 5_000, "Maximum wait for a delivery check. After it the source counts as away."
    )
    gone_ms: int = _ms(
        "OA_UPSTREAM_GONE_MS", 10_000, "Time after which the gateway is unready because runtime delivers nothing."
    )
    replay_timeout_ms: int = _ms("OA_REPLAY_TIMEOUT_MS", 10_000, "Maximum time to read a page of history.")
    hedge_ms: int = _ms(
        "OA_REPLAY_HEDGE_MS",
        1_000,
        "Time after which a slow read of a page of history is also sent to another replica; 0 turns this off.",
        minimum=0,
    )
    concurrent_hedges: int = _count(
        "OA_REPLAY_CONCURRENT_HEDGES", 16, "Maximum number of concurrent reads from one source that are sent twice."
    )

    def limits(self) -> SourceLimits:
        """The limits for sources."""
        return SourceLimits(
            replay_timeout_ms=self.replay_timeout_ms,
            hedge_ms=self.hedge_ms,
            concurrent_hedges=self.concurrent_hedges,
            ask_interval_ms=self.ask_interval_ms,
            answer_ms=self.answer_ms,
            check_ms=self.check_ms,
            gone_ms=self.gone_ms,
        )


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(ServiceSettings):
    """Everything that can be set."""

    service: ClassVar[str] = "khala_gateway"
    jwks: JwksSettings = group(JwksSettings)
    revocations: RevocationSettings = group(RevocationSettings)
    client: GrpcClientSettings = group(GrpcClientSettings)
    socket: SocketSettings = group(SocketSettings)
    proxies: ProxySettings = group(ProxySettings)
    edge_tls: EdgeTlsSettings = group(EdgeTlsSettings)
    handshakes: HandshakeSettings = group(HandshakeSettings)
    session: SessionSettings = group(SessionSettings)
    feeds: FeedSettings = group(FeedSettings)
    upstream: UpstreamSettings = group(UpstreamSettings)
    frames: FrameSettings = group(FrameSettings)

    def problems(self) -> Iterator[Problem]:
        """Report, beside what no service takes, sockets that anybody could listen in on."""
        yield from super().problems()
        certificate, needed = self.edge_tls.cert_file, "OA_EDGE_TLS_CERT_FILE"
        yield from self.tls.open_listener(self.socket.address, "OA_WS_ADDRESS", certificate, needed)
