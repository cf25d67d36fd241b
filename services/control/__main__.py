"""Control: people, tokens and the public edge. Run with `python -m services.control`."""

from __future__ import annotations

from pathlib import Path

from oa_base.clock import Clock
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.http.server import HttpServer
from oa_platform.postgres.migrate import check_schema
from oa_platform.postgres.pool import Postgres
from oa_platform.process.lifecycle import Process, run_service
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.tls.protection import Protection, edge_protection
from services.control.app.account import Account
from services.control.app.entropy import SystemEntropy
from services.control.app.gate import Gate
from services.control.app.housekeeping import keep_sweeping
from services.control.app.ports import World
from services.control.app.service_accounts import ServiceAccountCases
from services.control.app.sign_in import SignIn
from services.control.app.sync_tokens import SyncTokens
from services.control.config import ControlSettings
from services.control.grpc_api.handlers import Handlers, PublicAddresses
from services.control.grpc_api.servicers import register_all
from services.control.grpc_api.tokens import AccessTokenVerifier, JwtSigner, KeyRing
from services.control.grpc_api.upstream import Upstreams
from services.control.http_api.app import edge_app
from services.control.http_api.edge import Edge
from services.control.http_api.methods import open_methods
from services.control.http_api.protocol import limited_protocol
from services.control.store.store import PgStore


async def start(settings: ControlSettings, process: Process) -> None:
    """Wire the rooms together. Upstreams need not be there: what doesn't need them works without them."""
    clock = process.clock
    watch = ClockWatch(settings.service, clock, settings.clock)
    ring = settings.keys.key_ring()
    verifier = TokenVerifier(StaticKeys(ring.public_keys), clock, watch)
    postgres = await process.enter(Postgres(settings.database, "control"))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, "control", Path(__file__).parent / "migrations")
    store = PgStore(postgres)
    process.background("housekeeping", keep_sweeping(store, clock))

    world = World(store, clock, SystemEntropy(), JwtSigner(ring.signing), settings.keys.hmac_bytes())
    upstreams = await _upstreams(settings, process, world)
    gate = Gate(world, AccessTokenVerifier(verifier))
    handlers = _handlers(settings, world, upstreams)

    authenticator = Authenticator(
        "control", settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    register_all(server, handlers.table(), gate)
    await process.enter(server)
    edge = Edge(open_methods(), handlers.table(), gate, upstreams, settings.edge.limits())
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, clock))
    await process.enter(_http_server(settings, edge, ring, clock, outside))


async def _upstreams(settings: ControlSettings, process: Process, world: World) -> Upstreams:
    targets = {"runtime": settings.peers.runtime, "projector": settings.peers.projector}
    channels = {
        audience: await process.enter(
            open_channel(target, settings.client, settings.identity.service_token, process.protection)
        )
        for audience, target in targets.items()
    }
    return Upstreams(channels, world.signer, world.clock, world.entropy)


def _handlers(settings: ControlSettings, world: World, upstreams: Upstreams) -> Handlers:
    runtime = settings.peers.runtime_public or settings.peers.runtime
    return Handlers(
        sign_in=SignIn(world, settings.mail.mailer(), settings.sign_in.limits()),
        account=Account(world),
        service_accounts=ServiceAccountCases(world),
        sync_tokens=SyncTokens(world, upstreams),
        addresses=PublicAddresses(settings.peers.khala_url, str(runtime)),
    )


def _http_server(
    settings: ControlSettings, edge: Edge, ring: KeyRing, clock: Clock, protection: Protection
) -> HttpServer:
    limits = settings.edge
    app = edge_app(edge, ring.jwks(), clock, limits.allowed_origins, limits.max_head_bytes)
    protocol = limited_protocol(limits.max_head_bytes, limits.head_timeout_s)
    return HttpServer(
        app,
        limits.address,
        variable="OA_HTTP_ADDRESS",
        drain_s=limits.drain_s,
        protocol=protocol,
        protection=protection,
    )


if __name__ == "__main__":
    run_service(ControlSettings, start)
