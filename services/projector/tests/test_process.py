"""The process itself: started as in production, killed with SIGKILL, drained with SIGTERM."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import httpx
import pytest

from oa_base.refusal import Refusal
from oa_fanout.nats import NatsConnection
from oa_platform.config.loading import load
from oa_platform.config.shared import token_hash
from oa_testing.fork_server import PYTHON
from oa_testing.peers.nats import nats_server
from oa_testing.peers.revocations import ScriptedRevocations
from oa_testing.plain_http import plain_http
from oa_testing.postgres import ON_FAST, REPOSITORY, Database, free_port
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.control.v1 import revocation_service_pb2
from openagents.sync.v1 import topic_service_pb2, topic_service_pb2_grpc
from services.projector.config import ProjectorSettings
from services.projector.tests import histories as h
from services.projector.tests.fake_log import FakeLog, listening, some_runs, spread
from services.projector.tests.rig import Rig, check_everything_once

WAIT_S = PATIENCE_S
T = TypeVar("T")


class Projector:
    """`python -m services.projector` on fixed ports, so that it can be started again."""

    def __init__(self, database: Database, log_port: int, directory: Path) -> None:
        self.grpc_port, self.ops_port = free_port(), free_port()
        self.output = directory / "projector.log"
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / root) for root in (".", "libs", "gen")),
            "OA_DATABASE_URL": database.projector,
            **ON_FAST,
            "OA_SERVICE_TOKEN": "the projector's",
            "OA_ACCEPTED_SERVICES": f"khala_gateway={token_hash('the gateway')}",
            "OA_GRPC_ADDRESS": f"127.0.0.1:{self.grpc_port}",
            "OA_OPS_ADDRESS": f"127.0.0.1:{self.ops_port}",
            "OA_RUNTIME_GRPC": f"127.0.0.1:{log_port}",
            "OA_CONTROL_URL": "http://127.0.0.1:1",
            "OA_CONTROL_GRPC": f"127.0.0.1:{log_port}",
            "OA_PROJECTOR_BATCH_EVENTS": "3",
            "OA_PROJECTOR_HEADS_INTERVAL_MS": "50",
        }

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process for the time of the block; killed at its end if it still runs."""
        with self.output.open("ab") as output:
            command = [PYTHON, "-m", "services.projector"]
            process = subprocess.Popen(command, env=self.env, cwd=REPOSITORY, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def get(self, path: str) -> httpx.Response | None:
        """An answer of the ops port, None when there is none."""
        async with plain_http() as client:
            try:
                return await client.get(f"http://127.0.0.1:{self.ops_port}{path}")
            except httpx.TransportError:
                return None

    async def metrics(self) -> str:
        """What it measures."""
        answer = await self.get("/metrics")
        assert answer is not None
        return answer.text

    async def until_ready(self) -> None:
        """Wait for readiness."""
        async with asyncio.timeout(WAIT_S):
            while (answer := await self.get("/readyz")) is None or answer.status_code != 200:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", [1, 2])
async def test_sigkill_at_any_time_loses_and_repeats_nothing(
    rig: Rig, projector_database: Database, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    runs = some_runs(120)
    log = FakeLog(spread(runs), page=2)
    total = sum(len(run) for run in runs)

    async def applied() -> int:
        return sum(checkpoint.position for checkpoint in await rig.checkpoints.all())

    kills = 0
    async with listening(log) as port:
        projector = Projector(projector_database, port, tmp_path)
        while await applied() < total and kills < 4:
            with projector.running() as process:
                before = await applied()
                async with asyncio.timeout(WAIT_S):
                    while await applied() == before:
                        assert process.poll() is None, projector.output.read_text()
                        await asyncio.sleep(0.002)
                await asyncio.sleep(chance.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        with projector.running():
            await projector.until_ready()
    assert kills > 1
    await check_everything_once(rig, runs)


async def test_ready_serving_measured_and_drained(projector_database: Database, tmp_path: Path) -> None:
    log = FakeLog(spread(some_runs(8)))
    async with listening(log) as port:
        projector = Projector(projector_database, port, tmp_path)
        with projector.running() as process:
            await projector.until_ready()
            metrics = await projector.get("/metrics")
            assert metrics is not None
            assert 'oa_projector_lag_events{partition="0"} 0.0' in metrics.text
            assert "oa_projector_connected 1.0" in metrics.text
            async with grpc.aio.insecure_channel(f"127.0.0.1:{projector.grpc_port}") as channel:
                topics = topic_service_pb2_grpc.TopicServiceStub(channel)
                request = topic_service_pb2.DescribeTopicRequest(topic=f"user:{h.ulid('usr', 0)}:runs")
                found = await topics.DescribeTopic(request, metadata=(("x-oa-service-token", "the gateway"),))
            assert found.head > 0
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, WAIT_S) == 0


async def test_what_happened_while_it_was_down_is_not_told_to_who_was_removed_meanwhile(
    rig: Rig, projector_database: Database, tmp_path: Path
) -> None:
    control = ScriptedRevocations()
    lost = revocation_service_pb2.PLACE_CHANGE_LOST
    await control.revoke(revocation_service_pb2.Revocation(subject=h.USER, org_id=h.ORG, place_change=lost))
    async with listening(FakeLog(spread([h.whole_run(1)])), control) as port:
        projector = Projector(projector_database, port, tmp_path)
        with projector.running():
            await projector.until_ready()
    topics = [f"user:{h.USER}:runs", f"user:{h.USER}:notifications", f"org:{h.ORG}:runs"]
    assert [bool(await rig.journal.page(topic, 0, 100)) for topic in topics] == [False, False, True]


async def test_it_stays_ready_while_runtime_is_away(projector_database: Database, tmp_path: Path) -> None:
    """Lists are read from what has been applied; that they grow stale is told by metrics."""
    with ExitStack() as processes:
        async with listening(FakeLog(spread(some_runs(8)))) as port:
            projector = Projector(projector_database, port, tmp_path)
            processes.enter_context(projector.running())
            await projector.until_ready()
        async with asyncio.timeout(WAIT_S):
            while "oa_projector_connected 0.0" not in await projector.metrics():
                await asyncio.sleep(0.02)
        answer = await projector.get("/readyz")
        assert answer is not None
        assert answer.status_code == 200


async def test_live_frames_are_published_once_for_gateways_that_take_them_there(
    projector_database: Database, tmp_path: Path
) -> None:
    """As runtime does it: its stream names the subject, and a topic's rows come under that."""
    log, topic, heard = (
        FakeLog(spread([])),
        f"user:{h.ulid('usr', 0)}:runs",
        list[topic_service_pb2.WatchTopicsResponse](),
    )
    async with listening(log) as port, nats_server() as server:
        projector = Projector(projector_database, port, tmp_path)
        projector.env["OA_FRAMES_NATS_URL"] = server.url
        connection = NatsConnection(server.url, random.random)
        with projector.running():
            await projector.until_ready()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{projector.grpc_port}") as channel:
                topics = topic_service_pb2_grpc.TopicServiceStub(channel)
                call: Any = topics.WatchTopics(metadata=(("x-oa-service-token", "the gateway"),))
                await call.write(topic_service_pb2.WatchTopicsRequest(delivery_checks=True))
                subject = await _read(call, lambda answer: answer.subject)
                connection.subscribe(f"{subject}.>", lambda data: heard.append(_answer(data)))
                holding = asyncio.create_task(connection.run())
                await eventually(lambda: any(one.delivery_check for one in heard))
                route = topic_service_pb2.FRAME_ROUTE_SUBJECT
                await call.write(topic_service_pb2.WatchTopicsRequest(frame_route=route, add_topics=[topic]))
                await _read(call, lambda answer: answer.watched)
                await log.append(0, h.whole_run(0, h.ulid("usr", 0)))
                await eventually(lambda: any(batch.frames for one in heard for batch in one.batches))
                assert {batch.topic for one in heard for batch in one.batches} == {topic}
                where = await _read(call, lambda answer: answer.batches)
                assert (where[0].topic, len(where[0].frames)) == (topic, 0), "on the stream only where the topic stands"
            (counted,) = re.findall(r"(?m)^oa_frames_published_total (\S+)$", await projector.metrics())
            assert float(counted) >= 1
            await server.kill()
            async with asyncio.timeout(WAIT_S):
                while "oa_frames_connected 0.0" not in await projector.metrics():
                    await asyncio.sleep(0.02)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)


def _answer(data: bytes) -> topic_service_pb2.WatchTopicsResponse:
    return topic_service_pb2.WatchTopicsResponse.FromString(data)


async def _read(call: Any, of_interest: Callable[[topic_service_pb2.WatchTopicsResponse], T]) -> T:
    """The first thing of interest that a stream says."""
    async with asyncio.timeout(WAIT_S):
        while not (found := of_interest(await call.read())):
            pass
    return found


async def test_a_hole_is_an_alarm_and_not_a_crash(projector_database: Database, tmp_path: Path) -> None:
    """It is not ready before it has caught up, and says why; what has been applied is served, and SIGTERM drains."""

    def hole(number: int, message: object) -> object:
        if message.first_position > 1:  # type: ignore[attr-defined]
            message.first_position += 1  # type: ignore[attr-defined]
        return message

    log = FakeLog(spread(some_runs(8)), meddle=hole)  # type: ignore[arg-type]
    async with listening(log) as port:
        projector = Projector(projector_database, port, tmp_path)
        with projector.running() as process:
            async with asyncio.timeout(WAIT_S):
                while '"projection_halted"' not in projector.output.read_text():
                    await asyncio.sleep(0.02)
            answer = await projector.get("/readyz")
            assert answer is not None
            assert answer.status_code == 503
            assert "(hole)" in answer.json()["failures"]["tail"]
            metrics = await projector.get("/metrics")
            assert metrics is not None
            assert 'oa_projector_halted{cause="hole"} 1.0' in metrics.text
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, WAIT_S) == 0


async def test_without_its_migrations_it_does_not_start(empty_database: Database, tmp_path: Path) -> None:
    projector = Projector(empty_database, 1, tmp_path)
    with projector.running() as process:
        assert await asyncio.to_thread(process.wait, WAIT_S) == 2
    assert "migration_refused" in projector.output.read_text()


def test_who_follows_workers_leaves_a_connection_for_the_rest(projector_database: Database, tmp_path: Path) -> None:
    env = {**Projector(projector_database, free_port(), tmp_path).env, "OA_DATABASE_POOL_MIN": "1"}
    load(ProjectorSettings, {**env, "OA_DATABASE_POOL_MAX": "2"})
    with pytest.raises(Refusal, match="at least 2") as refused:
        load(ProjectorSettings, {**env, "OA_DATABASE_POOL_MAX": "1"})
    assert refused.value.field == "OA_DATABASE_POOL_MAX"
