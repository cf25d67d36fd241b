"""TopicService and ReadService through the real gRPC server, with the identity checks that it makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import grpc.aio
import pytest
import pytest_asyncio

from oa_base.identity import ISSUER
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY, SERVICE_TOKEN_KEY, Authenticator
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.config.loading import load
from oa_platform.config.shared import GrpcServerSettings, token_hash
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.postgres.pool import Postgres
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.clock import SystemClock
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from oa_topics.servicer import TopicApi
from oa_topics.store import TopicLimits
from oa_topics.tests.conformance import Source, TopicSourceSuite
from oa_topics.tests.conformance import replay as replay_of
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from openagents.projection.v1 import read_service_pb2, read_service_pb2_grpc, run_summary_pb2
from openagents.runtime.v1 import run_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2, topic_service_pb2_grpc
from services.projector.grpc_api.read_service import ReadService
from services.projector.tests import histories as h
from services.projector.tests.rig import TOPIC_LIMITS, Rig

KEY = generate_key()
GATEWAY, CONTROL = "gateway's token", "control's token"
MINE = f"user:{h.USER}:runs"
OURS = f"org:{h.ORG}:runs"


@dataclass
class Doors:
    """Stubs of the running server."""

    topics: topic_service_pb2_grpc.TopicServiceAsyncStub
    reads: read_service_pb2_grpc.ReadServiceAsyncStub


@pytest.fixture
def limits() -> TopicLimits:
    """The defaults; a test that reaches a limit has its own."""
    return TOPIC_LIMITS


@pytest.fixture
def rig(postgres: Postgres, limits: TopicLimits) -> Rig:
    return Rig(postgres, limits)


@pytest_asyncio.fixture
async def doors(rig: Rig) -> AsyncIterator[Doors]:
    accepted = {"khala_gateway": token_hash(GATEWAY), "control": token_hash(CONTROL)}
    verifier = TokenVerifier(StaticKeys([KEY.public_key]), SystemClock())
    settings = load(GrpcServerSettings, {"OA_GRPC_ADDRESS": "127.0.0.1:0", "OA_GRPC_STREAM_DRAIN_S": "0.1"})
    server = GrpcServer(settings, Authenticator("projector", accepted, verifier))
    topics = TopicApi(rig.hub, note_refusal)
    server.register(topic_service_pb2_grpc.add_TopicServiceServicer_to_server, topics)
    server.register(read_service_pb2_grpc.add_ReadServiceServicer_to_server, ReadService(rig.reader))
    hub = asyncio.create_task(rig.hub.run())
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        # The async stubs exist in the type stubs only.
        topic_stub: Any = topic_service_pb2_grpc.TopicServiceStub(channel)
        read_stub: Any = read_service_pb2_grpc.ReadServiceStub(channel)
        yield Doors(topic_stub, read_stub)
    hub.cancel()
    await asyncio.gather(hub, return_exceptions=True)


def as_gateway() -> tuple[tuple[str, str], ...]:
    return ((SERVICE_TOKEN_KEY, GATEWAY),)


def as_person(
    subject: str = h.USER, org_id: str = h.ORG, scopes: tuple[str, ...] = ("runs.read",)
) -> tuple[tuple[str, str], ...]:
    now = int(time.time())
    kind = principal_pb2.PRINCIPAL_KIND_USER
    if subject.startswith("sva_"):
        kind = principal_pb2.PRINCIPAL_KIND_SERVICE_ACCOUNT
    claims = claims_pb2.PrincipalClaims(
        iss=ISSUER,
        sub=subject,
        aud="projector",
        iat=now,
        nbf=now,
        exp=now + 60,
        jti="1",
        kind=kind,
        org_id=org_id,
        scopes=scopes,
    )
    return ((SERVICE_TOKEN_KEY, CONTROL), (PRINCIPAL_KEY, sign_token(claims, KEY)))


async def refused(call: Any) -> Refusal:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_from_rpc_error(caught.value)


def frames_of(page: topic_service_pb2.TopicFrames) -> list[tuple[int, run_summary_pb2.RunSummary]]:
    """(seq, summary) of ready frames."""
    frames = [frame_pb2.KhalaFrame.FromString(data) for data in page.frames]
    for place, frame in enumerate(frames):
        assert (frame.topic, frame.kind, frame.schema_version) == (page.topic, frame_pb2.FRAME_KIND_EVENT, 1)
        assert frame.seq == page.first_seq + place
    return [(frame.seq, run_summary_pb2.RunSummary.FromString(frame.payload_bytes)) for frame in frames]


# ------------------------------------------------------------------------------------------------- topics


async def describe(doors: Doors, topic: str) -> topic_service_pb2.DescribeTopicResponse:
    request = topic_service_pb2.DescribeTopicRequest(topic=topic)
    return await doors.topics.DescribeTopic(request, metadata=as_gateway())


async def test_a_topic_without_rows_has_head_0_and_an_owner(rig: Rig, doors: Doors) -> None:
    mine, ours = await describe(doors, MINE), await describe(doors, OURS)
    assert (mine.head, mine.floor, mine.owner_user_id, mine.owner_org_id) == (0, 0, h.USER, "")
    assert (ours.head, ours.floor, ours.owner_user_id, ours.owner_org_id) == (0, 0, "", h.ORG)
    assert mine.epoch == ours.epoch == await rig.journal.epoch()


async def replay(doors: Doors, after_seq: int = 0, **bounds: Any) -> topic_service_pb2.ReplayTopicResponse:
    epoch = bounds.pop("epoch", None) or (await describe(doors, MINE)).epoch
    request = topic_service_pb2.ReplayTopicRequest(topic=MINE, epoch=epoch, after_seq=after_seq, **bounds)
    return await doors.topics.ReplayTopic(request, metadata=as_gateway())


async def fill(rig: Rig, runs: int = 5) -> None:
    """`runs` runs of ours, each in a batch of its own: as many rows on each topic."""
    checkpoint = await rig.checkpoint()
    for number in range(runs):
        checkpoint = await rig.apply(checkpoint, h.whole_run(number))


async def test_cursors_that_do_not_fit_are_refused_with_where_the_topic_stands(
    rig: Rig, doors: Doors, projector_database: Database
) -> None:
    await fill(rig)
    owner = await asyncpg.connect(projector_database.projector)
    await owner.execute("UPDATE topic_heads SET floor = 2")
    await owner.close()
    assert (await refused(replay(doors, 2, epoch="other"))).reason == "epoch_mismatch"
    assert (await refused(replay(doors, 1))).reason == "retention_floor_breach"
    refusal = await refused(replay(doors, 6))
    assert refusal.reason == "cursor_ahead_of_head"
    assert (refusal.metadata["head"], refusal.metadata["floor"]) == ("5", "2")
    assert len((await replay(doors, 2)).page.frames) == 3
    assert list((await replay(doors, 5)).page.frames) == []


class Watch:
    """A Watch stream, read as a gateway would."""

    def __init__(self, doors: Doors) -> None:
        self.call: Any = doors.topics.WatchTopics(metadata=as_gateway())
        self.watched: dict[str, topic_service_pb2.WatchedTopic] = {}
        self.seqs: list[int] = []

    async def ask(self, **changes: Any) -> None:
        """Add or remove topics."""
        await self.call.write(topic_service_pb2.WatchTopicsRequest(**changes))

    async def read(self) -> topic_service_pb2.WatchTopicsResponse:
        """The next answer; frames must be of topics that are watched."""
        answer: topic_service_pb2.WatchTopicsResponse = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        self.watched.update({topic.topic: topic for topic in answer.watched})
        for batch in answer.batches:
            assert batch.topic in self.watched
            self.seqs += [seq for seq, _ in frames_of(batch)]
        return answer

    async def until_seq(self, seq: int) -> None:
        """Read until a frame of `seq` has come."""
        while not self.seqs or self.seqs[-1] < seq:
            await self.read()


async def test_what_is_committed_after_watched_comes_live_and_in_order(rig: Rig, doors: Doors) -> None:
    await fill(rig, 1)
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE, "nonsense", f"run:{h.ulid('run', 1)}:events"])
    answer = await watch.read()
    assert watch.watched[MINE].head == 1
    assert watch.watched[MINE].owner_user_id == h.USER
    assert {topic.topic: topic.reason for topic in answer.refused} == {
        "nonsense": "invalid_topic",
        f"run:{h.ulid('run', 1)}:events": "invalid_topic",
    }
    checkpoint = await rig.checkpoint()
    for number in range(2, 6):
        checkpoint = await rig.apply(checkpoint, h.whole_run(number))
    await watch.until_seq(5)
    assert watch.seqs == [2, 3, 4, 5]


@pytest.mark.parametrize("limits", [TopicLimits(poll_interval_ms=20, page_frames=2)])
async def test_another_replicas_commits_come_too(rig: Rig, doors: Doors, postgres: Postgres) -> None:
    """They are found in the journal, page by page: the hub is told of its own process's commits only."""
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE])
    await watch.read()
    other = Rig(postgres)
    await fill(other, 3)
    await rig.apply(await rig.checkpoint(), h.whole_run(3))
    await watch.until_seq(4)
    assert watch.seqs == [1, 2, 3, 4]


async def test_partitions_that_commit_at_once_come_in_the_order_of_their_seqs(rig: Rig, doors: Doors) -> None:
    watch = Watch(doors)
    await watch.ask(add_topics=[MINE])
    await watch.read()

    async def work(partition: int) -> None:
        checkpoint = await rig.checkpoint(partition)
        for number in range(8):
            checkpoint = await rig.apply(checkpoint, h.whole_run(partition * 100 + number))

    await asyncio.gather(*(work(partition) for partition in range(6)))
    await watch.until_seq(48)
    assert watch.seqs == list(range(1, 49))


@pytest.mark.parametrize(
    ("limits", "frames"),
    [(TopicLimits(page_frames=2), 2), (TopicLimits(page_bytes=1), 1), (TopicLimits(), 5)],
    ids=["frames", "bytes", "defaults"],
)
async def test_a_page_is_bounded_unless_asked_otherwise(rig: Rig, doors: Doors, frames: int) -> None:
    await fill(rig)
    assert len((await replay(doors)).page.frames) == frames
    assert len((await replay(doors, max_frames=4, max_bytes=1 << 20)).page.frames) == 4


async def test_only_services_may_ask_for_topics(doors: Doors) -> None:
    request = topic_service_pb2.DescribeTopicRequest(topic=MINE)
    refusal = await refused(doors.topics.DescribeTopic(request))
    assert refusal.reason == "service_not_accepted"


# ------------------------------------------------------------------------------------------------- conformance


@dataclass
class ProjectorSource:
    """`oa_topics.tests.conformance.Source`: each event is a whole run of a user."""

    rig: Rig
    stub: Any
    owner: str
    metadata: Any = field(default_factory=as_gateway)
    topics: tuple[str, str, str] = (MINE, f"user:{h.OTHER_USER}:runs", f"user:{h.ulid('usr', 3)}:runs")
    foreign: str = f"run:{h.ulid('run', 1)}:events"
    runs: int = 0

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        user_id = topic.removeprefix("user:").removesuffix(":runs")
        spec = replace(h.SPEC, title="x" * size)
        events = []
        for _ in range(count):
            self.runs += 1
            events += h.history(self.runs, [h.created(user_id, spec=spec), h.started(), h.SUCCEEDED])
        await self.rig.apply(await self.rig.checkpoint(), events)

    async def lose(self, topic: str, seq: int) -> None:
        owner = await asyncpg.connect(self.owner)
        await owner.execute("DELETE FROM projection.journal WHERE topic = $1 AND seq = $2", topic, seq)
        await owner.close()


class TestTopics(TopicSourceSuite):
    @pytest.fixture
    def source(self, rig: Rig, doors: Doors, projector_database: Database) -> Source:
        return ProjectorSource(rig, doors.topics, projector_database.projector)

    @pytest.mark.parametrize("topic", ["user:me:runs", "runs", f"user:{h.ORG}:runs"])
    async def test_a_name_that_is_none_is_refused(self, doors: Doors, topic: str) -> None:
        request = topic_service_pb2.DescribeTopicRequest(topic=topic)
        refusal = await refused(doors.topics.DescribeTopic(request, metadata=as_gateway()))
        assert (refusal.reason, refusal.field) == ("invalid_topic", "topic")

    async def test_a_chain_is_refused_for_there_is_none(self, source: Source) -> None:
        refusal = await refused(replay_of(source, source.topics[0], after_chain=b"c" * 32))
        assert (refusal.reason, refusal.field) == ("invalid_value", "after_chain")


# ------------------------------------------------------------------------------------------------- reads


async def run_ids(doors: Doors, metadata: Any, **query: Any) -> tuple[list[str], str]:
    page = await doors.reads.ListRunSummaries(read_service_pb2.ListRunSummariesRequest(**query), metadata=metadata)
    return [summary.run_id for summary in page.summaries], page.next_page_token


async def test_lists_hold_the_callers_own_runs_in_pages(rig: Rig, doors: Doors) -> None:
    events = [event for number in range(5) for event in h.whole_run(number)]
    events += h.whole_run(5, user_id=h.OTHER_USER) + h.whole_run(6, org_id=h.OTHER_ORG)
    await rig.apply(await rig.checkpoint(), events)
    collected, token = await run_ids(doors, as_person(), page_size=2)
    while token:
        page, token = await run_ids(doors, as_person(), page_size=2, page_token=token)
        collected += page
    assert collected == [h.ulid("run", n) for n in (4, 3, 2, 1, 0)]
    assert (await run_ids(doors, as_person(h.ulid("sva", 1))))[0] == [h.ulid("run", n) for n in (5, 4, 3, 2, 1, 0)]
    assert await run_ids(doors, as_person(h.ulid("usr", 9))) == ([], "")


async def test_a_page_has_50_runs_unless_asked_otherwise(rig: Rig, doors: Doors) -> None:
    await fill(rig, 51)
    page, token = await run_ids(doors, as_person())
    assert len(page) == 50
    assert len((await run_ids(doors, as_person(), page_token=token))[0]) == 1


async def test_a_page_token_is_good_for_its_own_query_only(rig: Rig, doors: Doors) -> None:
    await fill(rig)
    _, token = await run_ids(doors, as_person(), page_size=2)
    assert token
    others: list[tuple[Any, dict[str, Any]]] = [
        (as_person(h.OTHER_USER), {"page_token": token}),
        (as_person(org_id=h.OTHER_ORG), {"page_token": token}),
        (as_person(), {"page_token": token, "status": run_pb2.RUN_STATUS_FAILED}),
        (as_person(), {"page_token": "x" + token}),
        (as_person(), {"page_token": token[:-3]}),
        (as_person(), {"page_token": "äöü"}),
        (as_person(), {"page_token": "AAAA"}),
    ]
    for metadata, query in others:
        refusal = await refused(run_ids(doors, metadata, **query))
        assert (refusal.reason, refusal.field) == ("invalid_page_token", "page_token")


async def test_a_run_is_for_its_org_and_its_user(rig: Rig, doors: Doors) -> None:
    await fill(rig, 1)
    request = read_service_pb2.GetRunSummaryRequest(run_id=h.ulid("run", 0))
    for reader in (as_person(), as_person(h.OTHER_USER), as_person(org_id=h.OTHER_ORG)):
        summary = (await doors.reads.GetRunSummary(request, metadata=reader)).summary
        assert (summary.run_id, summary.user_id) == (h.ulid("run", 0), h.USER)
    stranger = await refused(doors.reads.GetRunSummary(request, metadata=as_person(h.OTHER_USER, h.OTHER_ORG)))
    request.run_id = h.ulid("run", 77)
    nobodys = await refused(doors.reads.GetRunSummary(request, metadata=as_person()))
    assert (stranger.reason, nobodys.reason) == ("not_found", "not_found")
    assert stranger.message.replace(h.ulid("run", 0), h.ulid("run", 77)) == nobodys.message


async def test_reads_need_a_principal_with_the_scope(doors: Doors) -> None:
    request = read_service_pb2.ListRunSummariesRequest()
    for metadata, reason in (
        (as_person(scopes=()), "missing_scope"),
        (((SERVICE_TOKEN_KEY, CONTROL),), "missing_authorization"),
        (as_gateway(), "service_not_accepted"),
    ):
        assert (await refused(doors.reads.ListRunSummaries(request, metadata=metadata))).reason == reason


@pytest.mark.parametrize(
    ("query", "field"),
    [({"page_size": 201}, "page_size"), ({"status": 99}, "status"), ({"page_token": "x" * 513}, "page_token")],
)
async def test_bad_queries_name_their_field(doors: Doors, query: dict[str, Any], field: str) -> None:
    refusal = await refused(run_ids(doors, as_person(), **query))
    assert refusal.field == field
    assert refusal.reason in ("invalid_value", "invalid_enum")


async def test_checkpoints_are_for_control(rig: Rig, doors: Doors) -> None:
    await fill(rig, 1)
    request = read_service_pb2.ListCheckpointsRequest()
    answer = await doors.reads.ListCheckpoints(request, metadata=((SERVICE_TOKEN_KEY, CONTROL),))
    (checkpoint,) = answer.checkpoints
    assert (checkpoint.projection, checkpoint.version, checkpoint.epoch) == ("run_summaries", 1, "log_test")
    assert (checkpoint.applied.partition, checkpoint.applied.position) == (0, len(h.whole_run(0)))
    refusal = await refused(doors.reads.ListCheckpoints(request, metadata=as_gateway()))
    assert (refusal.reason, refusal.metadata["callers"]) == ("caller_not_allowed", "control")
