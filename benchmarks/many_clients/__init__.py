"""Many clients in a process of their own: each opens a connection, says something, and discards what it gets.

    says = [client_message(hello) + client_message(subscribe), …]
    async with many_clients(port, UPGRADE + b"\\r\\n", says, expected_bytes=1) as crowd:
        await crowd.come()
        await crowd.all_served()

The clients are written in Go, and run on one core. Where there is no Go, they are in Python: these need more CPU than
the server that is measured. The server then waits for them, does fewer things at a time, and takes more CPU for each.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.measure import on_core

AT_A_TIME = 1_000
"""How many wait for the answer to what they say first, at a time."""
PATIENCE_S = 120.0
CLIENTS_CORE = 1
_SOURCE = Path(__file__).parent


class ManyClients:
    """The clients, as the process that measures knows them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def come(self) -> None:
        """Have them connect. Until then, nothing is done that would be measured with what they cost."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"come\n")
        await self._process.stdin.drain()

    async def all_served(self) -> None:
        """Wait until each client has got as many bytes as it expects."""
        await self.said(b"all\n")

    async def said(self, line: bytes) -> None:
        """Wait until their process prints `line`."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            assert await self._process.stdout.readline() == line


def go_program(source: Path, directory: Path) -> Path | None:
    """The program whose source is in `source`, compiled into `directory`; None where there is no Go, or where it lacks
    modules and reaches no proxy for them."""
    go = shutil.which("go")
    if go is None:
        return None
    program = directory / source.name
    done = subprocess.run([go, "build", "-o", str(program), "."], cwd=source, capture_output=True, check=False)
    return program if done.returncode == 0 else None


@asynccontextmanager
async def many_clients(
    port: int,
    first: bytes,
    says: Iterable[bytes],
    *,
    ping: bytes = b"",
    ping_every_s: int = 0,
    expected_bytes: int = 1,
) -> AsyncIterator[ManyClients]:
    """The clients, for a block: one for each of `says`, which it says once `first` has been answered."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = directory / "says"
        file.write_bytes(b"".join(base64.b64encode(one) + b"\n" for one in (first, ping, *says)))
        program = await asyncio.to_thread(go_program, _SOURCE, directory)
        command = [str(program)] if program else [sys.executable, "-m", "benchmarks.many_clients"]
        numbers = map(str, (AT_A_TIME, ping_every_s, expected_bytes))
        pipe = asyncio.subprocess.PIPE
        with on_core(CLIENTS_CORE):
            process = await asyncio.create_subprocess_exec(
                *command, str(port), str(file), *numbers, stdin=pipe, stdout=pipe
            )
        clients = ManyClients(process)
        try:
            await clients.said(b"ready\n")
            yield clients
        finally:
            process.kill()
            await process.wait()
