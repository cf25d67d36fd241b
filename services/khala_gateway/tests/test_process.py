"""The process itself: started as in production, while control is away; killed with SIGKILL, drained with SIGTERM."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Cursor
from oa_platform.auth.keys import to_jwks
from oa_platform.config.loading import load
from oa_testing.postgres import DEVELOPMENT, REPOSITORY, free_port
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.admission.domain import PATH
from services.khala_gateway.config import GatewaySettings
from services.khala_gateway.tests.fake_upstream import FakeUpstream
from services.khala_gateway.tests.harness import USER, Client, Limits, Stack, T, U


class GatewayProcess:
    """`python -m services.khala_gateway` on fixed ports, so that it can be started again."""

    def __init__(self, directory: Path) -> None:
        self.stack = Stack(FakeUpstream(), FakeUpstream(), Limits())
        self.ws_port = free_port((0, 1, 2))
        self.grpc_port, self.ops_port = self.ws_port + 1, self.ws_port + 2
        self.output = directory / "gateway.log"
        self.process: subprocess.Popen[bytes]
        keys = directory / "keys.json"
        keys.write_text(json.dumps(to_jwks([self.stack.key.public_key])), "utf-8")
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / root) for root in (".", "libs", "gen")),
            "OA_SERVICE_TOKEN": "the gateway's",
            **DEVELOPMENT,
            "OA_WS_ADDRESS": f"127.0.0.1:{self.ws_port}",
            "OA_GRPC_ADDRESS": f"127.0.0.1:{self.grpc_port}",
            "OA_OPS_ADDRESS": f"127.0.0.1:{self.ops_port}",
            "OA_CONTROL_URL": "http://127.0.0.1:1",
            "OA_JWKS_CACHE_FILE": str(keys),
            "OA_WS_DRAIN_WINDOW_MS": "200",
        }

    async def start_upstreams(self) -> None:
        """Runtime with `T` (10 events), projector with `U` (3 events)."""
        for name, upstream in (("RUNTIME", self.stack.runtime), ("PROJECTOR", self.stack.projector)):
            await upstream.start()
            self.env[f"OA_{name}_GRPC"] = f"127.0.0.1:{upstream.port}"
        self.stack.runtime.create(T, USER, 10)
        self.stack.projector.create(U, USER, 3)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process for the time of the block; killed at its end if it still runs."""
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", "services.khala_gateway"]
            process = subprocess.Popen(command, env=self.env, cwd=REPOSITORY, stdout=output, stderr=output)
        self.process = process
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def get(self, path: str) -> httpx.Response | None:
        """An answer of the ops port, None when there is none."""
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            try:
                return await client.get(f"http://127.0.0.1:{self.ops_port}{path}")
            except httpx.TransportError:
                return None

    async def until(self, status: int) -> httpx.Response:
        """The first readiness answer with that status; fails at once, with what it said, when the process has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self.get("/readyz")) is None or answer.status_code != status:
                assert self.process.poll() is None, self.output.read_text("utf-8")[-2_000:]
                await asyncio.sleep(0.02)
        return answer

    async def connect(self) -> Client:
        """A client that has been welcomed."""
        client = await Client.open(f"ws://127.0.0.1:{self.ws_port}{PATH}")
        await client.hello(self.stack.token(T, U))
        await client.next(frames.Welcome)
        return client


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    await process.start_upstreams()
    yield process
    await process.stack.runtime.stop()
    await process.stack.projector.stop()


@pytest.mark.parametrize("variable", ["OA_WS_DRAIN_WINDOW_MS", "OA_WS_CLOSE_TIMEOUT_MS"])
def test_a_part_of_the_drain_that_is_longer_than_the_drain_is_refused(tmp_path: Path, variable: str) -> None:
    env = GatewayProcess(tmp_path).env
    load(GatewaySettings, {**env, variable: "10000"})
    with pytest.raises(Refusal) as refused:
        load(GatewaySettings, {**env, variable: "10001"})
    assert refused.value.field == variable
    assert f"{variable} (10001) is longer than OA_DRAIN_DEADLINE_S (10)" in refused.value.message


async def test_a_lame_duck_takes_new_clients(gateway: GatewayProcess) -> None:
    gateway.env["OA_LAME_DUCK_S"] = "600"
    with gateway.running() as process:
        await gateway.until(200)
        process.send_signal(signal.SIGTERM)
        await gateway.until(503)
        client = await gateway.connect()
        await client.follow(T)
        process.send_signal(signal.SIGTERM)
        assert (await client.next(frames.Draining)).reconnect_after_ms == 0
        assert await client.close_code() == ("", 1012)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


async def test_it_serves_while_control_is_away_and_drains_on_sigterm(gateway: GatewayProcess) -> None:
    with gateway.running() as process:
        await gateway.until(200)
        client = await gateway.connect()
        await client.follow(T)
        await client.follow(U)
        metrics = await gateway.get("/metrics")
        assert metrics is not None
        assert "oa_khala_connections 1.0" in metrics.text
        assert "oa_khala_delivered_frames_total 13.0" in metrics.text
        process.send_signal(signal.SIGTERM)
        assert (await client.next(frames.Draining)).reconnect_after_ms == 0
        assert await client.close_code() == ("", 1012)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    log = gateway.output.read_text("utf-8")
    assert "connection_open" in log
    assert "eyJ" not in log, "a token was logged"


async def test_sigkill_loses_nothing(gateway: GatewayProcess) -> None:
    with gateway.running():
        await gateway.until(200)
        client = await gateway.connect()
        await client.follow(T)
        gateway.stack.runtime.append(T, 5)
        await client.up_to(T, 12)
    gateway.stack.runtime.append(T, 5)
    await client.close_code()
    with gateway.running():
        await gateway.until(200)
        again = await gateway.connect()
        await again.follow(T, Cursor("e1", client.seqs[T][-1]))
        assert client.seqs[T] + again.seqs[T] == list(range(1, 21))


async def test_it_is_not_ready_without_both_sources_and_says_which(gateway: GatewayProcess) -> None:
    await gateway.stack.projector.stop()
    with gateway.running():
        async with asyncio.timeout(PATIENCE_S):
            while True:
                failures = (await gateway.until(503)).json()["failures"]
                # Who looks after it is told the address that does not answer, not only that there is none.
                if list(failures) == ["projector"] and gateway.env["OA_PROJECTOR_GRPC"] in failures["projector"]:
                    break
                await asyncio.sleep(0.02)
        await gateway.stack.projector.start()
        await gateway.until(200)


async def test_a_port_in_use_is_named(gateway: GatewayProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gateway.ws_port))
        taken.listen()
        with gateway.running() as process:
            assert await asyncio.to_thread(process.wait, PATIENCE_S) == 2
    assert "OA_WS_ADDRESS" in gateway.output.read_text("utf-8")
