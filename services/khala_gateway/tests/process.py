"""`python -m services.khala_gateway` as in production, for tests: started, killed, started again."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from oa_khala import frames
from oa_platform.auth.keys import to_jwks
from oa_testing.fork_server import PYTHON
from oa_testing.plain_http import plain_http
from oa_testing.postgres import DEVELOPMENT, REPOSITORY, free_port
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.admission.domain import PATH
from services.khala_gateway.tests.fake_upstream import FakeUpstream
from services.khala_gateway.tests.harness import USER, Client, Limits, Stack, T, U, ending_clients


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
            command = [PYTHON, "-m", "services.khala_gateway"]
            process = subprocess.Popen(command, env=self.env, cwd=REPOSITORY, stdout=output, stderr=output)
        self.process = process
        with ending_clients():
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    async def get(self, path: str) -> httpx.Response | None:
        """An answer of the ops port, None when there is none."""
        async with plain_http(timeout_s=PATIENCE_S) as client:
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

    @property
    def url(self) -> str:
        """Where Khala listens."""
        return f"ws://127.0.0.1:{self.ws_port}{PATH}"

    async def connect(self) -> Client:
        """A client that has been welcomed."""
        client = await Client.open(self.url)
        await client.hello(self.stack.token(T, U))
        await client.next(frames.Welcome)
        return client
