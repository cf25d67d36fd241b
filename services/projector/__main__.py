"""The projector: read models and summary topics from runtime's log. Run with `python -m services.projector`."""

from __future__ import annotations

from pathlib import Path

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.postgres.migrate import check_schema
from oa_platform.postgres.pool import Postgres
from oa_platform.process.lifecycle import Process, run_service
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.telemetry.metrics import REGISTRY
from oa_topics.hub import TopicHub
from oa_topics.servicer import TopicApi
from openagents.projection.v1 import read_service_pb2_grpc
from openagents.sync.v1 import topic_service_pb2_grpc
from services.projector.app.observe import LoggedReport, ProgressCollector
from services.projector.app.progress import Progress
from services.projector.app.projection import Projection
from services.projector.app.reads import Reads
from services.projector.app.tail import Tail, TailLimits
from services.projector.app.topics import JournalTopics, Unreported
from services.projector.config import ProjectorSettings, TailSettings
from services.projector.grpc_api.log_source import GrpcLogSource
from services.projector.grpc_api.read_service import ReadService
from services.projector.grpc_api.wire import SummaryCodec
from services.projector.store.journal import PgJournalStore
from services.projector.store.projections import PgProjectionStore
from services.projector.store.reads import PgReadStore

MIGRATIONS = Path(__file__).parent / "migrations"


async def start(settings: ProjectorSettings, process: Process) -> None:
    """Wire the rooms."""
    clock, codec, progress = process.clock, SummaryCodec(), Progress()
    watch = ClockWatch(settings.service, clock, settings.clock)
    postgres = await process.enter(Postgres(settings.database, settings.service))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, settings.service, MIGRATIONS)
    keys = await process.enter(JwksCache(settings.jwks, clock, watch=watch, protection=process.protection))

    journal = PgJournalStore(postgres)
    hub = TopicHub(JournalTopics(journal), settings.topics.limits(), Unreported())
    process.background("hub", hub.run())

    store = PgProjectionStore(postgres, codec)
    channel = await process.enter(
        open_channel(
            settings.tail.runtime_address, settings.client, settings.identity.service_token, process.protection
        )
    )
    tail = Tail(
        GrpcLogSource(channel),
        store,
        Projection(store, codec, hub, progress),
        progress,
        limits=_tail_limits(settings.tail),
        report=LoggedReport(),
    )
    process.background("tail", tail.run())
    process.readiness.add("tail", lambda: _check(progress))
    REGISTRY.register(ProgressCollector(progress))

    verifier = TokenVerifier(keys, clock, watch)
    authenticator = Authenticator(
        settings.service, settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    topics = TopicApi(hub, note_refusal)
    server.register(topic_service_pb2_grpc.add_TopicServiceServicer_to_server, topics)
    reads = ReadService(Reads(PgReadStore(postgres, codec)))
    server.register(read_service_pb2_grpc.add_ReadServiceServicer_to_server, reads)
    await process.enter(server)


def _tail_limits(settings: TailSettings) -> TailLimits:
    return TailLimits(
        batch_events=settings.batch_events,
        lane_batches=settings.lane_batches,
        backoff_min_ms=settings.backoff_min_ms,
        backoff_max_ms=settings.backoff_max_ms,
        heads_interval_ms=settings.heads_interval_ms,
    )


async def _check(progress: Progress) -> None:
    """Ready when the tail is connected, has caught up once, and has not stopped at something."""
    if progress.not_ready_because:
        raise Refusal("unavailable", progress.not_ready_because)


if __name__ == "__main__":
    run_service(ProjectorSettings, start)
