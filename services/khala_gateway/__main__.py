"""The gateway: topics to clients over WebSocket. Run with `python -m services.khala_gateway`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from oa_base.clock import Clock
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.config.parsers import Address
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.process.lifecycle import Process, run_service
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.tls.protection import edge_protection
from services.khala_gateway.app.confirmations import Confirmations
from services.khala_gateway.app.connection import Gateway
from services.khala_gateway.app.feeds import FeedHub
from services.khala_gateway.app.flusher import Flusher
from services.khala_gateway.app.live_tokens import LiveTokens
from services.khala_gateway.app.replays import ReplayReader
from services.khala_gateway.config import GatewaySettings
from services.khala_gateway.grpc_api.topic_source import GrpcTopicSource, SourceLimits
from services.khala_gateway.ws_api.handshake import Door
from services.khala_gateway.ws_api.server import WebSocketServer
from services.khala_gateway.ws_api.tokens import SyncTokenVerifier


async def start(settings: GatewaySettings, process: Process) -> None:
    """Wire the rooms."""
    clock = process.clock
    watch = ClockWatch(settings.service, clock, settings.clock)
    process.readiness.add("clock", watch.check)
    keys = await process.enter(JwksCache(settings.jwks, clock, watch=watch, protection=process.protection))
    process.readiness.add("keys", keys.check)
    verifier = TokenVerifier(keys, clock, watch)

    addresses = {"runtime": settings.upstream.runtime, "projector": settings.upstream.projector}
    sources = {name: await _source(name, at, settings, process, lambda: hub) for name, at in addresses.items()}
    hub = await process.enter(FeedHub(settings.feeds.limits(), sources, random.random))
    process.background("audit", hub.run_audit())
    for name, source in sources.items():
        process.background(f"watch-{name}", source.run())

    now_ms = steady_wall_ms(clock)
    gateway = Gateway(
        hub=hub,
        replays=ReplayReader(sources, settings.feeds.page_frames, settings.feeds.page_bytes),
        confirmations=Confirmations(sources, settings.feeds.concurrent_confirmations),
        tokens=SyncTokenVerifier(verifier, clock, now_ms),
        live_tokens=LiveTokens(),
        flusher=Flusher(asyncio.get_running_loop(), settings.feeds.flush_tick_ms),
        limits=settings.session.limits(),
        now_ms=now_ms,
        jitter=random.random,
    )
    # For health and reflection only.
    authenticator = Authenticator(
        settings.service, settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    await process.enter(GrpcServer(settings.grpc, authenticator, process.protection))
    door = Door(settings.socket.allowed_origins)
    limits = settings.socket.limits(settings.session.max_frame_bytes)
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, clock))
    await process.enter(WebSocketServer(settings.socket.address, gateway, door, limits, outside))


async def _source(
    name: str, address: Address, settings: GatewaySettings, process: Process, hub: Callable[[], FeedHub]
) -> GrpcTopicSource:
    channel = await process.enter(
        open_channel(address, settings.client, settings.identity.service_token, process.protection)
    )
    limits = SourceLimits(replay_timeout_ms=settings.upstream.replay_timeout_ms)
    source = GrpcTopicSource(name, channel, hub, random.random, limits)
    process.readiness.add(name, source.check)
    return source


def steady_wall_ms(clock: Clock) -> Callable[[], int]:
    """Unix time in milliseconds that never goes back, whatever happens to the wall clock."""
    offset_s = clock.time() - clock.monotonic()
    return lambda: int((offset_s + clock.monotonic()) * 1000)


if __name__ == "__main__":
    run_service(GatewaySettings, start)
