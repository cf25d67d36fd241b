"""The clock of a person's machine may be wrong: what counts from now, counts by the site's clock."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from pathlib import Path

from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_localstack.installation.ports import HOST
from oa_testing.peers.listener import Listener
from oa_wire.connect import PROTO
from openagents.control.v1 import service_account_service_pb2 as accounts_pb2
from openagents.control.v1 import session_service_pb2
from openagents.runtime.v1 import run_service_pb2, schedule_service_pb2

YEAR_S = 365 * 86400
CREATED = run_service_pb2.CreateRunResponse()
CREATED.run.run_id = "run_" + "0" * 26
CREATED.run.spec.exec.argv.append("true")
SCHEDULED = schedule_service_pb2.CreateScheduleResponse()
SCHEDULED.schedule.spec.exec.argv.append("true")


class AheadSite:
    """A site whose clock is a year ahead of ours. `created`, `schedules`: what it was asked for."""

    def __init__(self) -> None:
        self.created: list[run_service_pb2.CreateRunRequest] = []
        self.schedules: list[schedule_service_pb2.CreateScheduleRequest] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]))
        answer = self._answer(head.split()[1].rpartition("/")[2], body)
        date = formatdate(time.time() + YEAR_S, usegmt=True)
        start = f"HTTP/1.1 200 OK\r\nConnection: close\r\nDate: {date}\r\nContent-Type: {PROTO}\r\n"
        writer.write(f"{start}Content-Length: {len(answer)}\r\n\r\n".encode() + answer)
        await writer.drain()

    def _answer(self, method: str, body: bytes) -> bytes:
        match method:
            case "ExchangeKey":
                exchanged = accounts_pb2.ExchangeKeyResponse(token="token")
                exchanged.expire_time.FromSeconds(int(time.time()) + YEAR_S + 3600)
                return exchanged.SerializeToString()
            case "CreateRun":
                self.created.append(run_service_pb2.CreateRunRequest.FromString(body))
                return CREATED.SerializeToString()
            case "CreateSchedule":
                self.schedules.append(schedule_service_pb2.CreateScheduleRequest.FromString(body))
                return SCHEDULED.SerializeToString()
            case _:
                return session_service_pb2.GetCallerResponse().SerializeToString()


async def test_a_delay_counts_by_the_sites_clock(tmp_path: Path) -> None:
    site = AheadSite()
    began_s = time.time()
    async with Listener(site.serve) as listener:
        env = {"OA_CONTROL_URL": f"http://{HOST}:{listener.port}", "OA_API_KEY": "oak_test"}
        oa = Program(tmp_path, env)
        for moment in ("+1h", "2030-01-01T00:00Z"):
            done = await oa("run", "start", "--detach", "--not-before", moment, "--", "true")
            assert done.status == Exit.OK, done.stderr
    delayed, fixed = (request.spec.queue.not_before_time.ToSeconds() for request in site.created)
    assert began_s + YEAR_S + 3600 - 1 <= delayed <= time.time() + YEAR_S + 3600 + 5
    assert fixed == 1_893_456_000


async def test_an_anchor_from_now_counts_by_the_sites_clock(tmp_path: Path) -> None:
    site = AheadSite()
    began_s = time.time()
    async with Listener(site.serve) as listener:
        env = {"OA_CONTROL_URL": f"http://{HOST}:{listener.port}", "OA_API_KEY": "oak_test"}
        oa = Program(tmp_path, env)
        for moment in ("+1h", "2030-01-01T00:00Z"):
            done = await oa("schedule", "create", "tick", "--every", "2h", "--anchor", moment, "--", "true")
            assert done.status == Exit.OK, done.stderr
    delayed, fixed = (request.interval.anchor_time.ToSeconds() for request in site.schedules)
    assert began_s + YEAR_S + 3600 - 1 <= delayed <= time.time() + YEAR_S + 3600 + 5
    assert fixed == 1_893_456_000
