"""A NATS server for tests: the real one, which comes as a package."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from oa_testing.postgres import free_port

_HOST = "127.0.0.1"
_POLL_S = 0.02
_PATIENCE_S = 60.0


@dataclass
class NatsServer:
    """A NATS server that can go away and come back."""

    port: int
    _arguments: Sequence[str] = ()
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process of the server, which has started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the server; returns when it takes connections."""
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program, "nats-server is a package of the development environment; run tools/bootstrap.sh"
        self._process = await asyncio.create_subprocess_exec(
            program,
            *("-a", _HOST, "-p", str(self.port), *self._arguments),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_PATIENCE_S):
            while not await self._takes_connections():
                await asyncio.sleep(_POLL_S)

    async def kill(self) -> None:
        """End the server at once."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def _takes_connections(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(_HOST, self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@asynccontextmanager
async def nats_server(*arguments: str) -> AsyncIterator[NatsServer]:
    """Run a NATS server for a block."""
    server = NatsServer(free_port(), arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
