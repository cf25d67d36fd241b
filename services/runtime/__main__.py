"""The runtime: the authority of runs and their log. Run with `python -m services.runtime`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.tokens import KeySource, TokenVerifier
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.postgres.migrate import check_schema
from oa_platform.postgres.pool import Postgres
from oa_platform.process.lifecycle import Process, run_service
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.ids import new_id
from oa_platform.tls.protection import edge_protection
from oa_runlog.proof.checkpoint import log_origin
from oa_runlog.proof.signing import NoteSigner, ReceiptSigner
from oa_topics.hub import TopicHub
from oa_topics.servicer import TopicApi
from openagents.runtime.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from openagents.runtime.v1.receipt_service_pb2_grpc import add_ReceiptServiceServicer_to_server
from openagents.runtime.v1.replay_service_pb2_grpc import add_ReplayServiceServicer_to_server
from openagents.runtime.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from openagents.runtime.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from openagents.sync.v1.topic_service_pb2_grpc import add_TopicServiceServicer_to_server
from services.runtime.app.archive import Archive
from services.runtime.app.archiver import Archiver
from services.runtime.app.artifact_cache import ArtifactCache
from services.runtime.app.artifacts import Artifacts
from services.runtime.app.dispatcher import Dispatcher
from services.runtime.app.fanout import publisher
from services.runtime.app.lineage import Lineage
from services.runtime.app.log import Log
from services.runtime.app.merger import Merger
from services.runtime.app.receipt_log import ReceiptLog
from services.runtime.app.replays import Replays
from services.runtime.app.retention_watch import RetentionWatch
from services.runtime.app.runs import Runs
from services.runtime.app.tail import Tail
from services.runtime.app.topics import HubMetrics, LiveEvents, RunTopics
from services.runtime.app.watchdog import Watchdog
from services.runtime.app.whole_log import WholeLog
from services.runtime.app.workers import Workers
from services.runtime.config import RuntimeSettings
from services.runtime.grpc_api.log import LogApi
from services.runtime.grpc_api.receipts import ReceiptApi
from services.runtime.grpc_api.replays import ReplayApi
from services.runtime.grpc_api.runs import RunApi
from services.runtime.grpc_api.workers import WorkerApi
from services.runtime.store.archive import PostgresArchiveRecords
from services.runtime.store.fanout import PostgresFanout
from services.runtime.store.lineage import PostgresHistories
from services.runtime.store.log import PostgresLog
from services.runtime.store.objects import open_objects
from services.runtime.store.reads import PostgresReads
from services.runtime.store.receipt_log import PostgresReceiptLog
from services.runtime.store.workers import PostgresWorkers

MIGRATIONS = Path(__file__).parent / "migrations"


def _receipt_key(settings: RuntimeSettings) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(settings.receipt_key.reveal().encode(), password=None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    except (ValueError, TypeError):
        pass
    text = "OA_RECEIPT_KEY is not an unencrypted Ed25519 private key in PEM form."
    raise Refusal("invalid_setting", text, field="OA_RECEIPT_KEY")


async def start(settings: RuntimeSettings, process: Process) -> None:
    """Start the service."""
    watch = ClockWatch(settings.service, process.clock, settings.clock)
    keys = await process.enter(JwksCache(settings.jwks, process.clock, watch=watch, protection=process.protection))
    process.readiness.add("keys", keys.check)
    await serve(settings, process, keys, watch)


async def serve(
    settings: RuntimeSettings, process: Process, keys: KeySource, watch: ClockWatch | None = None
) -> GrpcServer:
    """Wire the rooms together, with tokens checked against `keys`."""
    watch = watch or ClockWatch(settings.service, process.clock, settings.clock)
    replica_id, key = new_id("rep"), _receipt_key(settings)
    signer = ReceiptSigner(key)
    postgres = await process.enter(Postgres(settings.database, "runtime"))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, "runtime", MIGRATIONS)
    histories = PostgresHistories(postgres)
    lineage = Lineage(histories, replica_id, settings.tail.poll_interval_ms / 1000)
    histories.on_connect(lineage.confirm)
    await lineage.open()

    run_limits = settings.runs.limits(settings.archive.classes)
    reads = PostgresReads(postgres)
    installation = await reads.installation()
    await reads.add_receipt_key(signer.key_id, signer.public_key)
    records = PostgresArchiveRecords(postgres)
    archive, artifacts = _archive(settings, process, replica_id, reads, records)
    whole_log = WholeLog(reads, ArtifactCache(records, archive, settings.artifact_cache.limits()))
    tail, fanout = await _follow(settings, process, whole_log, lineage, replica_id)
    log = await process.enter(
        Log(
            installation,
            PostgresLog(postgres, fanout.commit_tail),
            run_limits,
            settings.sequencer.limits(),
            signer.sign,
            publisher(tail.publish, fanout),
        )
    )
    topics = TopicHub(RunTopics(reads, lineage), settings.topics.limits(), HubMetrics())
    process.background("topics", topics.run())
    tail.listen(LiveEvents(topics).on_records)
    workers = _look_after_workers(settings, process, log, reads, PostgresWorkers(postgres, replica_id))
    tail.listen(workers.on_records)
    lineage.on_change(lambda _: topics.restart())
    lineage.on_change(lambda _: workers.forget())
    process.background("lineage", lineage.run())
    receipt_log = PostgresReceiptLog(postgres)
    merging = settings.merge.limits()
    merger = Merger(receipt_log, NoteSigner(log_origin(installation.receipt_log), key), signer.key_id, merging)
    tail.listen(merger.on_records)
    process.background("merger", merger.run())

    verifier = TokenVerifier(keys, process.clock, watch)
    authenticator = Authenticator(
        "runtime", settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    runs = Runs(log, reads)
    server.register(add_RunServiceServicer_to_server, RunApi(runs))
    server.register(add_ReceiptServiceServicer_to_server, ReceiptApi(runs, ReceiptLog(receipt_log, runs, merging)))
    replays = Replays(runs, artifacts, settings.replay.limits())
    server.register(add_ReplayServiceServicer_to_server, ReplayApi(replays))
    server.register(add_LogServiceServicer_to_server, LogApi(tail, whole_log, lineage))
    server.register(add_TopicServiceServicer_to_server, TopicApi(topics, note_refusal))
    at_workers = await _worker_port(settings, process, authenticator)
    (at_workers or server).register(add_WorkerServiceServicer_to_server, WorkerApi(workers, run_limits))
    process.background("dismissal", _dismiss(at_workers or server, workers))
    await process.enter(server)
    if at_workers is not None:
        await process.enter(at_workers)
    return server


async def _worker_port(settings: RuntimeSettings, process: Process, authenticator: Authenticator) -> GrpcServer | None:
    """A port for workers alone, if they have one: they have no certificate of ours, and services must have one."""
    if settings.worker_address is None:
        return None
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, process.clock))
    grpc_settings = replace(settings.grpc, address=settings.worker_address)
    return GrpcServer(grpc_settings, authenticator, outside, variable="OA_WORKER_GRPC_ADDRESS", reflection=False)


async def _follow(
    settings: RuntimeSettings, process: Process, log: WholeLog, lineage: Lineage, replica_id: str
) -> tuple[Tail, PostgresFanout]:
    tail = Tail(log, settings.tail.limits())
    await tail.start()
    lineage.follow(tail.heads)
    lineage.on_change(lambda _: log.forget())
    lineage.on_change(tail.restart)
    interval_s = settings.tail.poll_interval_ms / 1000
    fanout = PostgresFanout(settings.database, replica_id, tail.hint, lineage.wake, interval_s)
    process.background("tail", tail.run())
    process.background("fanout", fanout.run())
    process.readiness.add("tail", fanout.check)
    return tail, fanout


def _look_after_workers(
    settings: RuntimeSettings, process: Process, log: Log, reads: PostgresReads, store: PostgresWorkers
) -> Workers:
    limits, cancel_deadline_ms = settings.workers.limits(), settings.runs.cancel_deadline_ms
    workers = Workers(log, reads, store, limits, cancel_deadline_ms)
    process.background("dispatcher", Dispatcher(log, workers, store, limits).run())
    process.background("watchdog", Watchdog(log, workers, store, limits, cancel_deadline_ms).run())
    return workers


def _archive(
    settings: RuntimeSettings, process: Process, replica_id: str, reads: PostgresReads, records: PostgresArchiveRecords
) -> tuple[Archive, Artifacts]:
    limits, replays = settings.archive.limits(), settings.replay.limits()
    objects = open_objects(limits.url) if limits.url else None
    archive = Archive(records, objects, replays.max_bytes)
    artifacts = Artifacts(reads, archive, replays)
    process.background("retention", RetentionWatch(records, limits.classes, limits.poll_ms).run())
    if objects is not None and limits.classes.ages:
        archiver = Archiver(replica_id, reads, records, objects, artifacts, archive, limits)
        process.background("archiver", archiver.run())
    return archive, artifacts


async def _dismiss(server: GrpcServer, workers: Workers) -> None:
    await server.draining.wait()
    workers.drain_all()


if __name__ == "__main__":
    run_service(RuntimeSettings, start)
