"""Builds the projector from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from oa_base.refusal import Refusal
from oa_khala.topics import ORG_RUNS, ORG_WORKERS, USER_RUNS, TopicClass
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.revocations import Revocations
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.frames.publishing import frame_publisher
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.lineage import PostgresHistories
from oa_platform.postgres.pool import Postgres
from oa_platform.process.lifecycle import Process
from oa_platform.process.revocations import follow_revocations
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.database_health import advertise_database
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.ids import new_id
from oa_platform.telemetry.metrics import REGISTRY
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.publisher import FramePublisher
from oa_topics.servicer import TopicApi
from openagents.projection.v1 import read_service_pb2_grpc
from openagents.sync.v1 import topic_service_pb2_grpc
from services.projector.config import ProjectorSettings
from services.projector.journal.app import (
    Documents,
    JournalTopics,
    Pruner,
    Publication,
    Unreported,
)
from services.projector.journal.door import encode_documents
from services.projector.journal.store import PostgresDeliveryChecks, PostgresJournalStore, PostgresJournalWriter
from services.projector.lineage.app import Lineage, follow, journal_lineage
from services.projector.lineage.store import PostgresHistory
from services.projector.notifications.door import encode_notification
from services.projector.places.app import Places
from services.projector.places.store import PostgresPlaceWriter
from services.projector.projection.app import Tail
from services.projector.projection.door import GrpcLogSource
from services.projector.projection.metrics import Progress, ProgressCollector
from services.projector.projection.store import PostgresCheckpointStore, PostgresCheckpointWriter
from services.projector.set_aside.app import Retries
from services.projector.set_aside.store import PostgresSetAside, PostgresSetAsideWriter
from services.projector.summaries.app import Reads, SummaryPlaces, SummaryProjection, Transaction, Transactions
from services.projector.summaries.domain import PROJECTION, VERSION, Codec, Encoders
from services.projector.summaries.door import ReadApi, SummaryCodec
from services.projector.summaries.store import PostgresRunDocuments, PostgresSummaryStore, PostgresSummaryWriter
from services.projector.workers.app import WorkersFollower
from services.projector.workers.door import GrpcWorkerSource
from services.projector.workers.store import PostgresTurns, PostgresWorkerDocuments

MIGRATIONS = Path(__file__).parent / "migrations"


async def start(settings: ProjectorSettings, process: Process) -> None:
    """Start the service: see run_service."""
    clock, codec, progress = process.clock, SummaryCodec(), Progress()
    watch = ClockWatch(settings.service, clock, settings.clock)
    postgres = await process.enter(Postgres(settings.database, settings.service))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, settings.service, MIGRATIONS)
    keys = await process.enter(JwksCache(settings.jwks, clock, watch=watch, protection=process.protection))

    limits, replica_id = settings.topics.limits(), new_id("rep")
    histories = PostgresHistories(postgres, PostgresHistory)
    lineage = journal_lineage(histories, replica_id, settings.tail.heads_interval_ms / 1000)
    frames = frame_publisher(settings.frames, process, replica_id, limits.pending_bytes)
    hub = TopicHub(journal_topics(postgres, lineage), limits, Unreported(), frames)
    publication = Publication(hub)
    follow(lineage, publication)
    histories.on_connect(lineage.confirm)
    await lineage.open()
    process.background("lineage", lineage.run())
    process.background("hub", hub.run())
    if frames is not None:
        process.background("topic heads", hub.run_heads())
    process.background("pruner", Pruner(PostgresJournalStore(postgres)).run())

    checkpoints = PostgresCheckpointStore(postgres, PROJECTION, VERSION)
    broken, aside = Quarantine("projection", "run_id", settings.quarantine), settings.tail.set_aside_limits()
    encoders = Encoders(codec.encode, encode_notification)
    projection = SummaryProjection(transactions(postgres, codec), encoders, publication, broken, aside)
    retries = Retries(PostgresSetAside(postgres, VERSION), projection.catch_up, broken, aside)
    channel = await process.enter(
        open_channel(settings.tail.runtime, settings.client, settings.identity.service_token, process.protection)
    )
    tail = Tail(GrpcLogSource(channel), checkpoints, projection, progress, limits=settings.tail.limits())
    process.readiness.add("tail", lambda: _check(progress))
    workers = WorkersFollower(GrpcWorkerSource(channel), PostgresTurns(postgres, PostgresJournalWriter), publication)
    process.background("workers", workers.run())
    REGISTRY.register(ProgressCollector(progress))

    revocations = await follow_revocations(
        process, settings.revocations.control, settings.client, settings.identity.service_token
    )
    places = Places(SummaryPlaces(transactions(postgres, codec)))
    revocations.listen(places.on_revocation)
    process.background("places", places.run())
    process.background("set aside", _once_known(places, revocations, retries.run))
    process.background("tail", _once_known(places, revocations, tail.run))
    verifier = TokenVerifier(keys, clock, watch, revocations)
    authenticator = Authenticator(
        settings.service, settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    checks = delivery_checks(postgres, frames)
    process.background("delivery checks", checks.run())
    topics = TopicApi(hub, checks, note_refusal)
    server.register(topic_service_pb2_grpc.add_TopicServiceServicer_to_server, topics)
    reads = ReadApi(Reads(PostgresSummaryStore(postgres, codec)), checkpoints)
    server.register(read_service_pb2_grpc.add_ReadServiceServicer_to_server, reads)
    await process.enter(server)
    process.background("grpc health", advertise_database(postgres.silence, server))


def journal_topics(postgres: Postgres, lineage: Lineage) -> JournalTopics:
    """The topics, with snapshots of those that describe a current state."""
    runs, workers = PostgresRunDocuments(postgres), PostgresWorkerDocuments(postgres)
    documents: dict[TopicClass, Documents] = {USER_RUNS: runs, ORG_RUNS: runs, ORG_WORKERS: workers}
    return JournalTopics(PostgresJournalStore(postgres), lambda: lineage.epoch, documents, encode_documents)


def delivery_checks(postgres: Postgres, frames: FramePublisher | None = None) -> DeliveryChecks:
    """The delivery checks. The replica that commits rows publishes them, and likewise the numbers of its checks."""
    store = PostgresDeliveryChecks(postgres)
    checks = DeliveryChecks(store.commit)
    store.on_commit(checks.heard)
    if frames is not None:
        store.on_commit(frames.check)
    return checks


def transactions(postgres: Postgres, codec: Codec) -> Transactions:
    """Transactions across all capabilities. READ COMMITTED is enough, because the checkpoint's row is locked."""

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Transaction]:
        async with postgres.transaction() as connection:
            yield Transaction(
                PostgresCheckpointWriter(connection),
                PostgresSummaryWriter(connection, codec),
                PostgresSetAsideWriter(connection, VERSION),
                PostgresPlaceWriter(connection),
                PostgresJournalWriter(connection),
            )

    return transaction


async def _once_known(places: Places, revocations: Revocations, work: Callable[[], Awaitable[None]]) -> None:
    """Do what tells people about runs, once it is known as far as possible who has lost a place."""
    await places.known(revocations.complete)
    await work()


async def _check(progress: Progress) -> None:
    """Check readiness: the tail must have caught up once. After that, its position is a matter for alerts."""
    if progress.not_ready_because:
        raise Refusal("unavailable", progress.not_ready_because)
