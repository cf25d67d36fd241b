"""The measured stack, with a person who is signed in, and workers that do what a measurement tells them."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.sizing.meter import Meters, Subject, process
from benchmarks.sizing.rows import SERVICES
from benchmarks.sockets import LET_ALL_IN
from benchmarks.stage import UNPACED
from oa_client.client import Client
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import Site as ClientSite
from oa_localstack.installation.environment import mail_file
from oa_localstack.installation.ports import ops_use
from oa_localstack.postgres.server import POSTGRES, processes_in
from oa_localstack.services import ask
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import free_port
from oa_testing.stack import StackUnderTest
from oa_worker import ApiKeyTokens, WorkerToken

PATIENCE_S = 60.0
"""Maximum duration of anything that should take a moment."""
ARCHIVED_CLASS = "archived"
"""Runs of this retention class go to the archive as soon as they are finished."""
_POLL_S = 0.25
"""Pause between reads of the metrics. Each read costs the measured service a few milliseconds."""
_EMAIL = "sizing@example.org"


@dataclass
class Site:
    """The stack and the client that measurements use."""

    stack: StackUnderTest
    client: Client
    api_key: str
    meters: Meters

    @property
    def tokens(self) -> ApiKeyTokens:
        """The source of workers' tokens."""
        return ApiKeyTokens(self.stack.urls["control"], self.api_key)

    async def metric(self, service: str, name: str) -> float:
        """The sum of a service's metric over its labels."""
        async with asyncio.timeout(PATIENCE_S):
            while not (answer := await ask(self.stack.ports.of(ops_use(service)), "/metrics", PATIENCE_S)).ready:
                await asyncio.sleep(_POLL_S)  # a busy service may not answer a request
        samples = [one for family in text_string_to_metric_families(answer.body + "\n") for one in family.samples]
        return sum(one.value for one in samples if one.name == name)

    async def until(self, service: str, name: str, holds: Callable[[float], bool]) -> None:
        """Wait until `holds` is true of a service's metric."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.metric(service, name)):
                await asyncio.sleep(_POLL_S)

    async def until_projected(self) -> None:
        """Wait until the projector has applied all stored events."""
        stored = await self.metric("runtime", "oa_runtime_events_stored_total")
        await self.until("projector", "oa_projector_events_total", lambda applied: applied >= stored)


class SharedToken:
    """One worker token for many workers, because the cost of a token is measured separately."""

    def __init__(self, token: WorkerToken) -> None:
        self._token = token

    async def get(self) -> WorkerToken:
        """See TokenSource."""
        return self._token


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A stack in a temporary directory, removed afterwards."""
    root = await asyncio.to_thread(_folder)
    runtime = UNPACED | {
        "OA_ARCHIVE_URL": str(root / "archive"),
        "OA_ARCHIVE_POLL_MS": "1000",
        "OA_RETENTION_CLASSES": f"default=keep,{ARCHIVED_CLASS}=1s",
    }
    stack = StackUnderTest(
        root / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        overrides={"runtime": runtime, "khala_gateway": LET_ALL_IN},
    )
    try:
        await stack.start()
        clients = ClientSite(ClientHome(root / "client"), stack.urls["control"])
        async with clients.client() as client:
            challenge = await client.auth.start(_EMAIL)
            await client.auth.verify(challenge, await _code(mail_file(stack.home)))
            account = await client.commands.create_service_account("sizing")
            yield Site(stack, client, account.api_key, Meters(_subjects(stack)))
    finally:
        await stack.stop()
        shutil.rmtree(root, ignore_errors=True)


def _folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix="oa-sizing-"))
    root.chmod(0o755)  # Postgres may run as another user
    return root


def _subjects(stack: StackUnderTest) -> dict[str, Subject]:
    subjects = {}
    for service in SERVICES:
        pid = stack.pid(service)
        assert pid is not None
        subjects[service] = process(pid)
    data = (stack.home / "postgres").resolve() / "data"
    assert processes_in(data), f"no {POSTGRES} works in {data}"
    return subjects | {"postgres": Subject(lambda: processes_in(data))}


async def _code(mails: Path) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while not (lines := await asyncio.to_thread(_lines, mails)):
            await asyncio.sleep(_POLL_S)
    return str(json.loads(lines[-1])["code"])


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []
