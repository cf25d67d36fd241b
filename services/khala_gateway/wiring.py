"""Builds the gateway from its settings; the only place that knows all features."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from oa_base.clock import Clock
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.config.parsers import Target
from oa_platform.frames.connection import frames_connection
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.process.lifecycle import Process
from oa_platform.process.revocations import follow_revocations
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.tls.protection import edge_protection
from services.khala_gateway.admission.app import Admission, LiveTokens
from services.khala_gateway.admission.domain import OriginPolicy
from services.khala_gateway.admission.door import SyncTokenVerifier
from services.khala_gateway.config import GatewaySettings
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.timer import Alarms
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.sources.app.published import PublishedFrames
from services.khala_gateway.sources.door import GrpcTopicSource


async def start(settings: GatewaySettings, process: Process) -> None:
    """Assemble the features, and have the process run them."""
    clock = process.clock
    watch = ClockWatch(settings.service, clock, settings.clock)
    process.readiness.add("clock", watch.check)
    keys = await process.enter(JwksCache(settings.jwks, clock, watch=watch, protection=process.protection))
    process.readiness.add("keys", keys.check)
    revocations = await follow_revocations(
        process, settings.revocations.control, settings.client, settings.identity.service_token
    )
    # A sync token opens one connection: to remember it would only take memory.
    verifier = TokenVerifier(keys, clock, watch, revocations, max_remembered=0)

    published = _published(settings, process)
    targets = {"runtime": settings.upstream.runtime, "projector": settings.upstream.projector}
    sources = {
        name: await _source(name, at, settings, process, lambda: hub, published.get(name))
        for name, at in targets.items()
    }
    hub_limits = settings.feeds.limits()
    flusher = Flusher(asyncio.get_running_loop(), settings.feeds.flush_tick_ms)
    hub = await process.enter(FeedHub(hub_limits, sources, random.random, flusher))
    process.background("audit", hub.run_audit())
    for name, source in sources.items():
        process.background(f"watch-{name}", source.run())
        process.background(f"look-{name}", source.run_looking())
    process.readiness.add("runtime", sources["runtime"].check_delivery)
    process.readiness.add("projector", sources["projector"].check)

    now_ms = steady_wall_ms(clock)
    dependencies = Dependencies(
        hub=hub,
        replays=ReplayReader(sources, hub_limits),
        confirmations=Confirmations(sources, settings.feeds.concurrent_confirmations),
        snapshots=Snapshots(sources, hub_limits),
        tokens=SyncTokenVerifier(verifier, clock, now_ms),
        live_tokens=LiveTokens(settings.socket.admission()),
        revocations=revocations,
        flusher=flusher,
        alarms=Alarms(now_ms),
        heartbeats=Heartbeats(hub.standing, settings.session.heartbeat_interval_ms, now_ms),
        limits=settings.session.limits(),
        now_ms=now_ms,
        jitter=random.random,
    )
    # For health and reflection only.
    authenticator = Authenticator(
        settings.service, settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    await process.enter(GrpcServer(settings.grpc, authenticator, process.protection))
    socket = settings.socket
    admission = Admission(OriginPolicy(socket.allowed_origins), socket.admission(), now_ms)
    limits = socket.limits(
        settings.session.max_frame_bytes, settings.proxies.trusted, settings.handshakes.max_of_network
    )
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, clock))
    await process.enter(WebSocketServer(socket.address, dependencies, admission, limits, outside))


def _published(settings: GatewaySettings, process: Process) -> Mapping[str, PublishedFrames]:
    """The published frames of each source, if there is a server for them."""
    published: dict[str, PublishedFrames] = {}

    def changed(why: str) -> None:
        for frames in published.values() if why else ():
            frames.lost(why)

    connection = frames_connection(settings.frames, process, changed)
    if connection is not None:
        limits = settings.upstream.limits()
        published |= {name: PublishedFrames(name, connection, limits) for name in ("runtime", "projector")}
    return published


async def _source(
    name: str,
    target: Target,
    settings: GatewaySettings,
    process: Process,
    hub: Callable[[], FeedHub],
    published: PublishedFrames | None,
) -> GrpcTopicSource:
    channel = await process.enter(
        open_channel(target, settings.client, settings.identity.service_token, process.protection)
    )
    return GrpcTopicSource(name, channel, hub, random.random, settings.upstream.limits(), published)


def steady_wall_ms(clock: Clock) -> Callable[[], int]:
    """Unix time in milliseconds that never goes back, whatever happens to the wall clock."""
    offset_s = clock.time() - clock.monotonic()
    return lambda: int((offset_s + clock.monotonic()) * 1000)
