"""Assembles the runtime: creates each feature's objects from the settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_base.refusal import Refusal
from oa_fanout.channel import Channel, Heard
from oa_khala.topics import RUN_EVENTS, WORKER_LIFECYCLE
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.keys import load_key
from oa_platform.auth.revocations import Revocations
from oa_platform.auth.tokens import KeySource, TokenVerifier
from oa_platform.frames.publishing import frame_publisher
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.lineage import PostgresHistories
from oa_platform.postgres.pool import Postgres
from oa_platform.process.lifecycle import Process
from oa_platform.process.revocations import follow_revocations
from oa_platform.rpc.database_health import advertise_database
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.ids import new_id
from oa_platform.tls.protection import Protection, edge_protection
from oa_runlog.authority.limits import RunLimits
from oa_runlog.proof.checkpoint import log_origin
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.signing import NoteSigner, ReceiptSigner
from oa_topics.delivery_checks import DeliveryChecks
from oa_topics.hub import TopicHub
from oa_topics.publisher import FramePublisher
from oa_topics.servicer import TopicApi
from openagents.runtime.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from openagents.runtime.v1.receipt_service_pb2_grpc import add_ReceiptServiceServicer_to_server
from openagents.runtime.v1.replay_service_pb2_grpc import add_ReplayServiceServicer_to_server
from openagents.runtime.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from openagents.runtime.v1.schedule_service_pb2_grpc import add_ScheduleServiceServicer_to_server
from openagents.runtime.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from openagents.runtime.v1.worker_watch_service_pb2_grpc import add_WorkerWatchServiceServicer_to_server
from openagents.sync.v1.topic_service_pb2_grpc import add_TopicServiceServicer_to_server
from services.runtime.agents.app import Agents
from services.runtime.agents.store import PostgresAgents
from services.runtime.archive.app.archive import Archive
from services.runtime.archive.app.archiver import Archiver
from services.runtime.archive.app.artifacts import Artifacts
from services.runtime.archive.store.objects import open_objects
from services.runtime.archive.store.records import PostgresArchiveRecords
from services.runtime.authority.app import Lineage, log_lineage
from services.runtime.authority.domain import Installation
from services.runtime.authority.store import PostgresHistory, read_installation
from services.runtime.children.app import Children
from services.runtime.children.store import PostgresFamilies
from services.runtime.config import FanoutSettings, RuntimeSettings
from services.runtime.ended_accounts.app import EndedAccounts, OnEnd
from services.runtime.ended_accounts.store import PostgresEndedAccounts
from services.runtime.log.app.channel_fanout import ChannelFanout, note_connected
from services.runtime.log.app.fanout import Fanout, Publish, publisher
from services.runtime.log.app.log import Log
from services.runtime.log.app.tail import Tail
from services.runtime.log.door import LogApi
from services.runtime.log.store.excerpts import PostgresExcerpts
from services.runtime.log.store.fanout import CHECK_CHANNEL, PostgresFanout
from services.runtime.log.store.log import CommitNotification, NoNotification, PostgresLog
from services.runtime.log.store.reads import PostgresReads
from services.runtime.places.app import Places
from services.runtime.places.limits import PlaceLimits
from services.runtime.places.store import PostgresPlaces
from services.runtime.receipts.app.merger import Merger
from services.runtime.receipts.app.receipt_log import ReceiptLog
from services.runtime.receipts.app.receipts import Receipts
from services.runtime.receipts.door import ReceiptApi
from services.runtime.receipts.store.receipt_log import PostgresReceiptLog
from services.runtime.receipts.store.receipts import PostgresReceipts
from services.runtime.replays.app import Replays
from services.runtime.replays.door import ReplayApi
from services.runtime.requests.app import Requests
from services.runtime.retention.app import RetentionWatch
from services.runtime.retention.store import PostgresOldestRuns
from services.runtime.runs.app import Runs
from services.runtime.runs.door import RunApi
from services.runtime.schedules.app.clock import ScheduleClock
from services.runtime.schedules.app.schedules import Schedules
from services.runtime.schedules.app.spec_check import SpecCheck
from services.runtime.schedules.door import ScheduleApi
from services.runtime.schedules.store.schedules import PostgresSchedules
from services.runtime.threads.app import Threads
from services.runtime.threads.store import PostgresThreads
from services.runtime.topics.app import (
    HubMetrics,
    LiveEvents,
    RuntimeTopics,
    RunTopics,
    Snapshots,
    WorkerTopics,
    is_worker_topic,
)
from services.runtime.topics.door import encode_run_snapshot, encode_worker_event
from services.runtime.topics.store import PostgresDeliveryChecks, PostgresStandings, PostgresWorkerEvents
from services.runtime.whole_log.app.artifact_cache import ArtifactCache
from services.runtime.whole_log.app.whole_log import WholeLog
from services.runtime.whole_log.store import PostgresPrunedLog
from services.runtime.worker_watch.app import WorkerWatch
from services.runtime.worker_watch.door import WorkerWatchApi
from services.runtime.worker_watch.limits import WorkerWatchLimits
from services.runtime.worker_watch.store import PostgresStandingWorkers
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.dispatcher import Dispatcher
from services.runtime.workers.app.ended_workers import EndedWorkers
from services.runtime.workers.app.held_runs import HeldRuns
from services.runtime.workers.app.ports import QueueRules
from services.runtime.workers.app.queue_watch import QueueWatch
from services.runtime.workers.app.watchdog import Watchdog
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.door import Authenticate, WorkerApi
from services.runtime.workers.store.workers import PostgresWorkers

MIGRATIONS = Path(__file__).parent / "migrations"


async def start(settings: RuntimeSettings, process: Process) -> None:
    """Start the service."""
    watch = ClockWatch(settings.service, process.clock, settings.clock)
    keys = await process.enter(JwksCache(settings.jwks, process.clock, watch=watch, protection=process.protection))
    process.readiness.add("keys", keys.check)
    revocations = await follow_revocations(
        process, settings.revocations.control, settings.client, settings.identity.service_token
    )
    await serve(settings, process, keys, watch, revocations)


async def serve(
    settings: RuntimeSettings,
    process: Process,
    keys: KeySource,
    watch: ClockWatch | None = None,
    revocations: Revocations | None = None,
) -> GrpcServer:
    """Start the service, with tokens checked against `keys` and `revocations`."""
    watch = watch or ClockWatch(settings.service, process.clock, settings.clock)
    revocations = revocations or Revocations(process.clock)
    signing_key = _receipt_key(settings)
    signer = ReceiptSigner(signing_key)
    postgres = await _database(settings, process, watch)
    replica = _Replica(settings, process, new_id("rep"), postgres, PostgresReads(postgres))
    lineage = await _lineage(replica)
    installation = await read_installation(postgres)
    await _publish_receipt_key(signer, settings, PostgresReceipts(postgres))

    archive, artifacts = _archive(replica)
    whole_log = _whole_log(replica, archive, lineage)
    tail, word = await _follow(replica, whole_log, lineage)
    log = await _write(replica, installation, signer, publisher(tail.publish, word.fanout), word.notification)
    lineage.on_change(lambda _: log.restart())
    pending_bytes = settings.topics.limits().pending_bytes
    frames = frame_publisher(settings.frames, process, replica.replica_id, pending_bytes)
    topics = _topics(replica, tail, word.database, lineage, frames)
    requests = Requests(log, replica.reads, settings.requests.limits())
    verifier = TokenVerifier(keys, process.clock, watch, revocations)
    authenticator = Authenticator(
        "runtime", settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    tokens = _WorkerTokens(authenticator.worker, revocations)
    workers = _look_after_workers(replica, log, tail, lineage, requests, tokens)
    process.background("lineage", lineage.run())
    note_signer = NoteSigner(log_origin(installation.receipt_log), signing_key)
    receipt_log = _merge_receipts(replica, tail, note_signer, signer.key_id)

    server = GrpcServer(settings.grpc, authenticator, process.protection)
    server.register(add_LogServiceServicer_to_server, LogApi(tail, whole_log, lineage))
    checks = _check_deliveries(replica, word.database, frames)
    server.register(add_TopicServiceServicer_to_server, TopicApi(topics, checks, note_refusal))
    server.register(add_WorkerWatchServiceServicer_to_server, _watch_workers(replica, tail, word.database))
    schedules = _serve_runs(replica, server, log, workers, requests, receipt_log, artifacts)
    _follow_ends(replica, revocations, [workers.workers.end_account, schedules.end_owner])
    _follow_places(replica, revocations, log, schedules)
    at_workers = await _worker_port(settings, process, authenticator)
    (at_workers or server).register(add_WorkerServiceServicer_to_server, workers.api)
    process.background("dismissal", _dismiss(at_workers or server, workers.attached))
    await process.enter(server)
    if at_workers is not None:
        await process.enter(at_workers)
    servers = [server] if at_workers is None else [server, at_workers]
    process.background("grpc health", advertise_database(postgres.silence, *servers))
    return server


async def _worker_port(settings: RuntimeSettings, process: Process, authenticator: Authenticator) -> GrpcServer | None:
    """The port for workers only, if there is one: workers have no certificate of ours, and services must have one."""
    if settings.worker_address is None:
        return None
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, process.clock))
    grpc_settings = replace(settings.grpc, address=settings.worker_address)
    return GrpcServer(grpc_settings, authenticator, outside, variable="OA_WORKER_GRPC_ADDRESS", reflection=False)


@dataclass(frozen=True)
class _Replica:
    """The objects that every part of this replica uses."""

    settings: RuntimeSettings
    process: Process
    replica_id: str
    postgres: Postgres
    reads: PostgresReads

    @property
    def run_limits(self) -> RunLimits:
        """The limits of a run."""
        return self.settings.runs.limits(self.settings.archive.classes)


@dataclass(frozen=True)
class _Workers:
    """The objects that look after workers, for other parts."""

    api: WorkerApi
    workers: Workers
    attached: AttachedWorkers
    agents: Agents
    dispatcher: Dispatcher


@dataclass(frozen=True)
class _WorkerTokens:
    """Identifies the callers of workers' tokens, and knows which tokens were revoked."""

    authenticate: Authenticate
    revocations: Revocations


def _receipt_key(settings: RuntimeSettings) -> Ed25519PrivateKey:
    return load_key(settings.receipt_key.reveal()).private_key


async def _publish_receipt_key(signer: ReceiptSigner, settings: RuntimeSettings, receipts: PostgresReceipts) -> None:
    """Note the key that signs from now on, endorsed by the one before it. Raises Refusal `invalid_setting`."""
    endorsement = None
    if settings.previous_receipt_key is not None:
        previous = ReceiptSigner(load_key(settings.previous_receipt_key.reveal()).private_key)
        endorsement = previous.endorse(signer.public_key)
    if not await receipts.add_receipt_key(ReceiptKey(signer.public_key, endorsement)):
        text = "OA_PREVIOUS_RECEIPT_KEY never signed here; give it the key that OA_RECEIPT_KEY had before"
        raise Refusal("invalid_setting", text, field="OA_PREVIOUS_RECEIPT_KEY")


async def _database(settings: RuntimeSettings, process: Process, watch: ClockWatch) -> Postgres:
    """Open the pool, and check the database's schema and clock."""
    postgres = await process.enter(Postgres(settings.database, "runtime"))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, "runtime", MIGRATIONS)
    return postgres


async def _lineage(replica: _Replica) -> Lineage:
    """Open the log's epoch, which every new connection confirms from now on."""
    histories = PostgresHistories(replica.postgres, PostgresHistory)
    lineage = log_lineage(histories, replica.replica_id, replica.settings.tail.poll_interval_ms / 1000)
    histories.on_connect(lineage.confirm)
    await lineage.open()
    return lineage


def _archive(replica: _Replica) -> tuple[Archive, Artifacts]:
    """Open the archive. If one is configured and runs leave the log, also start the archiver."""
    settings, process, postgres = replica.settings, replica.process, replica.postgres
    limits, making = settings.archive.limits(), settings.artifacts.limits()
    objects = open_objects(limits.url) if limits.url else None
    records, receipts = PostgresArchiveRecords(postgres), PostgresReceipts(postgres)
    archive = Archive(records, objects, making.max_bytes)
    artifacts = Artifacts(replica.reads, archive, making)
    watch = RetentionWatch(PostgresOldestRuns(postgres), limits.classes, limits.poll_ms)
    process.background("retention", watch.run())
    if objects is not None and limits.classes.ages:
        archiver = Archiver(replica.replica_id, receipts, records, objects, artifacts, archive, limits)
        process.background("archiver", archiver.run())
    return archive, artifacts


def _whole_log(replica: _Replica, archive: Archive, lineage: Lineage) -> WholeLog:
    limits = replica.settings.artifact_cache.limits()
    cache = ArtifactCache(PostgresArchiveRecords(replica.postgres), archive, limits)
    log = WholeLog(replica.reads, PostgresPrunedLog(replica.postgres), cache)
    lineage.on_change(lambda _: log.forget())
    return log


@dataclass(frozen=True)
class _Word:
    """How replicas learn of each other: of commits over `fanout`, which adds `notification` to each; of all else, and
    of missed commits, over `database`."""

    database: PostgresFanout
    fanout: Fanout
    notification: CommitNotification


async def _follow(replica: _Replica, log: WholeLog, lineage: Lineage) -> tuple[Tail, _Word]:
    """Start the tail, and the channels over which it learns of the other replicas."""
    settings, process = replica.settings, replica.process
    tail = Tail(log, settings.tail.limits())
    await tail.start()
    lineage.follow(tail.heads)
    lineage.on_change(tail.restart)
    interval_s = settings.tail.poll_interval_ms / 1000
    postgres = PostgresFanout(settings.database, replica.replica_id, tail.hint, lineage.wake, interval_s)
    process.background("tail", tail.run())
    process.background("fanout", postgres.run())
    process.readiness.add("tail", postgres.check)
    if not settings.fanout.nats_url:
        return tail, _Word(postgres, postgres, postgres.notification)
    channel = ChannelFanout(_nats(settings.fanout, settings.fanout.nats_url.reveal(), process.protection), tail.hint)
    process.background("channel", channel.run())
    return tail, _Word(postgres, channel, NoNotification())


def _nats(settings: FanoutSettings, url: str, protection: Protection) -> Callable[[Heard], Channel]:
    from oa_fanout.nats import NatsChannel  # few installations use NATS

    protection.check_url(url, "OA_FANOUT_NATS_URL", secure="tls")

    def opened(heard: Heard) -> Channel:
        return NatsChannel(url, settings.subject, heard, random.random, note_connected, lambda: protection.trust)

    return opened


async def _write(
    replica: _Replica,
    installation: Installation,
    signer: ReceiptSigner,
    publish: Publish,
    notification: CommitNotification,
) -> Log:
    store = PostgresLog(replica.postgres, notification)
    limits = replica.settings.sequencer.limits()
    return await replica.process.enter(Log(installation, store, replica.run_limits, limits, signer.sign, publish))


def _topics(
    replica: _Replica, tail: Tail, fanout: PostgresFanout, lineage: Lineage, frames: FramePublisher | None
) -> TopicHub:
    snapshots = Snapshots(PostgresArchiveRecords(replica.postgres), encode_run_snapshot)
    standings, excerpts = PostgresStandings(replica.postgres), PostgresExcerpts(replica.postgres)
    runs = RunTopics(replica.reads, standings, excerpts, snapshots)
    workers = WorkerTopics(PostgresWorkerEvents(replica.postgres, encode_worker_event))
    topics = RuntimeTopics({RUN_EVENTS: runs, WORKER_LIFECYCLE: workers}, lineage)
    hub = TopicHub(topics, replica.settings.topics.limits(), HubMetrics(), frames)
    replica.process.background("topics", hub.run())
    if frames is not None:
        replica.process.background("topic heads", hub.run_heads())
    tail.listen(LiveEvents(hub).on_records)
    fanout.on_workers(lambda: hub.read_again(is_worker_topic))
    lineage.on_change(lambda _: hub.restart())
    return hub


def _check_deliveries(replica: _Replica, fanout: PostgresFanout, frames: FramePublisher | None) -> DeliveryChecks:
    checks = DeliveryChecks(PostgresDeliveryChecks(replica.postgres, CHECK_CHANNEL).commit)
    fanout.on_delivery_check(checks.heard)
    if frames is not None:
        fanout.on_delivery_check(frames.check)
    replica.process.background("delivery checks", checks.run())
    return checks


def _look_after_workers(
    replica: _Replica, log: Log, tail: Tail, lineage: Lineage, requests: Requests, tokens: _WorkerTokens
) -> _Workers:
    settings, process = replica.settings, replica.process
    limits = replace(settings.workers.limits(), quarantine=settings.quarantine)
    cancel_deadline_ms = settings.runs.cancel_deadline_ms
    store = PostgresWorkers(replica.postgres, replica.replica_id)
    attached = AttachedWorkers(replica.reads, limits, cancel_deadline_ms)
    agents = Agents(PostgresAgents(replica.postgres))
    workers = Workers(log, attached, store, limits, agents.forget)
    bounds = settings.runs.max_running_per_org, settings.runs.max_running_per_person
    rules = QueueRules(limits.pauses_ms(), *bounds)
    dispatcher = Dispatcher(log, attached, store, limits, rules)
    process.background("dispatcher", dispatcher.run())
    process.background("queue", QueueWatch(store, limits.dispatch_interval_ms).run())

    async def accepts() -> bool:
        return not await process.readiness.failures()

    watchdog = Watchdog(log, workers, attached, store, limits, cancel_deadline_ms, accepts)
    process.background("watchdog", watchdog.run())
    process.background("ended workers", EndedWorkers(store, limits).run())
    tail.listen(attached.on_records)
    lineage.on_change(lambda _: workers.lease_holders.forget())
    lineage.on_change(lambda _: attached.restart())
    families = PostgresFamilies(replica.postgres)
    child_limits = replace(settings.children.limits(), quarantine=settings.quarantine)
    children = Children(log, dispatcher.create, families, agents, child_limits)
    process.background("children", children.run())
    tail.listen(children.on_records)
    held_runs = HeldRuns(replica.reads, workers.lease_holders, requests, children, limits)
    authenticate, revocations = tokens.authenticate, tokens.revocations
    api = WorkerApi(workers, held_runs, replica.run_limits, authenticate, revocations, process.clock.now)
    return _Workers(api, workers, attached, agents, dispatcher)


def _watch_workers(replica: _Replica, tail: Tail, fanout: PostgresFanout) -> WorkerWatchApi:
    limits = WorkerWatchLimits()
    watch = WorkerWatch(PostgresStandingWorkers(replica.postgres), limits)
    tail.listen(watch.on_records)
    fanout.on_workers(watch.changed)
    return WorkerWatchApi(watch, limits.page)


def _merge_receipts(replica: _Replica, tail: Tail, signer: NoteSigner, key_id: str) -> PostgresReceiptLog:
    store = PostgresReceiptLog(replica.postgres)
    limits = replace(replica.settings.merge.limits(), quarantine=replica.settings.quarantine)
    merger = Merger(store, signer, key_id, limits)
    tail.listen(merger.on_records)
    replica.process.background("merger", merger.run())
    return store


def _serve_runs(
    replica: _Replica,
    server: GrpcServer,
    log: Log,
    workers: _Workers,
    requests: Requests,
    receipt_log: PostgresReceiptLog,
    artifacts: Artifacts,
) -> Schedules:
    """Serve runs, schedules, and the receipts and replays of finished runs."""
    settings = replica.settings
    limits = settings.workers.limits()
    threads = Threads(
        log,
        PostgresThreads(replica.postgres),
        interval_ms=limits.watch_interval_ms,
        page=limits.watch_page,
        quarantine=settings.quarantine,
    )
    replica.process.background("threads", threads.run())
    runs = Runs(log, workers.dispatcher.create, replica.reads, workers.agents, threads)
    schedules = _schedules(replica, runs, workers.agents)
    server.register(add_ScheduleServiceServicer_to_server, ScheduleApi(schedules))
    receipts = Receipts(runs, PostgresReceipts(replica.postgres))
    replays = Replays(receipts, artifacts, settings.replay.limits())
    server.register(add_RunServiceServicer_to_server, RunApi(runs, requests))
    proofs = ReceiptLog(receipt_log, receipts, settings.merge.limits())
    server.register(add_ReceiptServiceServicer_to_server, ReceiptApi(receipts, proofs))
    server.register(add_ReplayServiceServicer_to_server, ReplayApi(replays))
    return schedules


def _follow_ends(replica: _Replica, revocations: Revocations, on_end: Sequence[OnEnd]) -> None:
    """End what an account has here when the account ends."""
    accounts = EndedAccounts(PostgresEndedAccounts(replica.postgres), on_end)
    revocations.listen(accounts.on_revocation)
    replica.process.background("ended accounts", accounts.run())


def _follow_places(replica: _Replica, revocations: Revocations, log: Log, schedules: Schedules) -> None:
    """Stop people and accounts that have lost a place from starting runs, and end the runs of deleted orgs."""
    store = PostgresPlaces(replica.postgres)
    limits = PlaceLimits(quarantine=replica.settings.quarantine)
    places = Places(store, log, schedules.end_place, schedules.reopen, limits)
    revocations.listen(places.on_revocation)
    replica.process.background("places", places.run())


def _schedules(replica: _Replica, runs: Runs, agents: Agents) -> Schedules:
    """Create the schedules, and start the clock that starts their runs."""
    limits = replace(replica.settings.schedules.limits(), quarantine=replica.settings.quarantine)
    store = PostgresSchedules(replica.postgres, limits.kept_times)
    specs = SpecCheck(agents, replica.run_limits)
    replica.process.background("schedules", ScheduleClock(store, runs, specs, limits).run())
    return Schedules(store, runs, specs, limits)


async def _dismiss(server: GrpcServer, attached: AttachedWorkers) -> None:
    await server.draining.wait()
    attached.drain_all()
