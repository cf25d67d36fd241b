"""A whole stack on loopback, as `oa up` starts it, and people who sign in to it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sockets import LET_ALL_IN
from oa_client.cpython.network import HttpxHttp
from oa_client.edge.auth import Auth, Credentials
from oa_client.edge.calls import Edge
from oa_client.edge.commands import Commands
from oa_localstack.installation.environment import mail_file
from oa_platform.config.ports import PORT_OFFSETS
from oa_platform.system.ids import new_id
from oa_testing.postgres import free_port
from oa_testing.stack import StackUnderTest
from oa_worker import ApiKeyTokens

PATIENCE_S = 120.0
"""Maximum duration of anything that should take a moment."""
BUILD = "oa-bench/0"
_MANY = "10000"
# Many people sign in from one address at once.
_LET_IN = {"OA_SIGN_IN_NETWORK_BURST": _MANY, "OA_SIGN_IN_GUESS_BURST": _MANY}


class Kept:
    """Credentials in memory."""

    def __init__(self) -> None:
        self._credentials: Credentials | None = None

    def load(self) -> Credentials | None:
        return self._credentials

    def save(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def clear(self) -> None:
        self._credentials = None

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        yield


@dataclass
class Session:
    """A separate person, signed in."""

    auth: Auth
    commands: Commands


class Site:
    """A stack, and the people who sign in to it."""

    def __init__(self, stack: StackUnderTest, http: HttpxHttp) -> None:
        self.stack = stack
        self._http = http

    async def session(self, number: int) -> Session:
        """Sign person `number` in."""
        edge = Edge(self.stack.urls["control"], self._http, BUILD)
        auth = Auth(edge, Kept(), new_id("dev"))
        email = f"person{number}@example.org"
        challenge = await auth.start(email)
        await auth.verify(challenge, await self._code(email))
        return Session(auth, Commands(edge, auth))

    def tokens(self, api_key: str) -> ApiKeyTokens:
        """The tokens of a worker with this key."""
        return ApiKeyTokens(self.stack.urls["control"], api_key)

    async def _code(self, email: str) -> str:
        path = mail_file(self.stack.home)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                lines = path.read_text("utf-8").splitlines() if path.exists() else []
                for mail in map(json.loads, reversed(lines)):
                    if mail["email"] == email:
                        return str(mail["code"])
                await asyncio.sleep(0.01)


@asynccontextmanager
async def site(control: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """A stack of its own, for a block; `control` are further settings of control."""
    with tempfile.TemporaryDirectory(prefix="oa-bench-") as folder:
        base = free_port(tuple(PORT_OFFSETS.values()))
        overrides = {"control": {**_LET_IN, **(control or {})}, "khala_gateway": LET_ALL_IN}
        stack = StackUnderTest(Path(folder) / "home", port_base=base, overrides=overrides)
        await stack.start()
        try:
            async with HttpxHttp() as http:
                yield Site(stack, http)
        finally:
            await stack.stop()
