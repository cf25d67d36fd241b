"""A worker stands still for several times the lost limit, as one on a laptop that sleeps, and then goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from oa_localstack.services import ask
from oa_runlog import wire
from oa_runlog.events import CheckpointSaved, EventType, RunEvent
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2
from services.runtime.tests.rig import until_status
from tests.kills.site import Site

pytestmark = pytest.mark.long

LOST_S = 4.0
STOPPED_S = 3 * LOST_S
IMPATIENT = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": f"{LOST_S * 1000:.0f}",
    "OA_WORKER_WATCH_MS": "100",
    "OA_ATTEMPT_BACKOFF_MS": "100",
    "OA_RETENTION_CLASSES": "default=keep",
}


@dataclass
class Saying:
    """A worker's process, and what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        """What it has printed."""
        return self.log.read_text().splitlines()

    async def until(self, line: str) -> None:
        """Return when it has printed the line."""
        await eventually(lambda: line in self.lines())


@dataclass
class Told:
    """A run, and the folder in which its agent sees what it may do."""

    run_id: str
    folder: Path

    def may_say(self, attempt: int, number: int) -> None:
        """Let the agent of this attempt store this number, once it has stored those before."""
        (self.folder / f"{attempt}-{number}").touch()

    def may_end(self) -> None:
        """Let the agent end the run."""
        (self.folder / "end").touch()


@asynccontextmanager
async def worker(site: Site, port: int, log: Path) -> AsyncIterator[Saying]:
    """A worker that attaches at the port, and is drained in the end."""
    token = dict(site.who.as_worker())["authorization"].removeprefix("Bearer ")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "TEST_WORKER_TOKEN": token, "TEST_RUNTIME": f"127.0.0.1:{port}", "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "tests.kills.saying"]
    with log.open("wb") as file:
        process = await asyncio.to_thread(subprocess.Popen, command, env=env, stdout=file)
    try:
        yield Saying(process, log)
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


async def start(site: Site, folder: Path) -> Told:
    """A run whose agent looks into the folder, which is made."""
    await asyncio.to_thread(folder.mkdir)
    spec = event_pb2.RunSpec(adapter="saying", agent=event_pb2.AgentSpec(input_json=json.dumps(str(folder))))
    request = run_service_pb2.CreateRunRequest(idempotency_key=folder.name, spec=spec)
    run = (await site.doors.runs.CreateRun(request, metadata=site.who.as_person())).run
    return Told(run.run_id, folder)


async def refused_as_stale(site: Site) -> int:
    """How many appends the authority has refused so."""
    counted = 'oa_refusals_total{reason="stale_epoch",surface="grpc"} '
    lines = (await ask(site.ops_port, "/metrics")).body.splitlines()
    return sum(int(float(line.removeprefix(counted))) for line in lines if line.startswith(counted))


async def log_of(database: Database, run_id: str) -> list[RunEvent]:
    """All events of the run, in order; there is no hole."""
    connection = await asyncpg.connect(database.admin)
    try:
        rows = await connection.fetch("SELECT seq, body FROM runtime.events WHERE run_id = $1 ORDER BY seq", run_id)
    finally:
        await connection.close()
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    return [wire.decode_event(row["body"]) for row in rows]


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_worker_that_stood_still_loses_its_run_and_is_as_good_as_before(
    cut_off: bool, runtime_database: Database, fault_proxies: FaultProxies, tmp_path: Path
) -> None:
    """`cut_off`: what it says last gets no further than the network, so that it surely sends it once more."""
    async with Site(runtime_database, tmp_path, IMPATIENT) as site:
        await site.start()
        await site.until_ready()
        way = await fault_proxies("127.0.0.1", site.grpc_port)
        async with worker(site, way.port, tmp_path / "first.log") as first:
            run = await start(site, tmp_path / "run-1")
            run.may_say(1, 0)
            await first.until("said 0")
            async with worker(site, site.grpc_port, tmp_path / "second.log") as second:
                if cut_off:
                    way.stall()
                    run.may_say(1, 1)
                    await first.until("says 1")
                first.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(STOPPED_S)
                await second.until(f"has {run.run_id}, attempt 2")
                run.may_say(2, 0)
                await second.until("said 0")
                run.may_say(1, 1)
                if cut_off:
                    await way.cut()
                    way.resume()
                assert await refused_as_stale(site) == 0
                first.process.send_signal(signal.SIGCONT)
                await first.until("cancelled")
                await first.until("refused stale_epoch")
                run.may_say(2, 1)
                await second.until("said 1")
                run.may_end()
                await until_status(site.doors, site.who, run.run_id, run_pb2.RUN_STATUS_SUCCEEDED)
            answers = {line for line in first.lines() if line.startswith(("said", "refused"))}
            assert answers == {"said 0", "refused stale_epoch"}
            if cut_off:
                assert await refused_as_stale(site) >= 1
            following = await start(site, tmp_path / "run-2")
            await first.until(f"has {following.run_id}, attempt 1")
            following.may_end()
            await until_status(site.doors, site.who, following.run_id, run_pb2.RUN_STATUS_SUCCEEDED)
    events = await log_of(runtime_database, run.run_id)
    assert [event.body.state_json if isinstance(event.body, CheckpointSaved) else event.type for event in events] == [
        EventType.RUN_CREATED,
        EventType.RUN_STARTED,
        '"1-0"',
        EventType.EXECUTOR_LOST,
        EventType.RUN_STARTED,
        '"2-0"',
        '"2-1"',
        EventType.RUN_FINISHED,
    ]
