"""Runs a stage's Postgres from a process of its own, which kills and starts it on request.

A process that uses gRPC must not fork, and starting Postgres under another user forks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import psutil

from benchmarks.stage import Stage
from oa_localstack.postgres.server import PostgresServer, Settings, processes_in

_START_S = 90.0
_server: PostgresServer | None = None
"""In the keeper's process: the server that it keeps."""


@dataclass
class Keeper:
    """The handle on the process."""

    _pool: ProcessPoolExecutor

    async def kill_and_start(self) -> float:
        """Send SIGKILL to every process of the server, and start it again at once.

        Returns the moment at which the last process was dead, by the monotonic clock. The server then accepts
        connections.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, _kill_and_start)


@contextmanager
def kept(stage: Stage) -> Iterator[Keeper]:
    """Hand the stage's server over to a keeper, for a block. Must not be called in an event loop."""
    mine = stage.postgres
    asyncio.run(mine.stop())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        where = mine.root, mine.port, mine.superuser_password, mine.log_path, dict(mine.settings)
        pool.submit(_start, *where).result(_START_S)
        try:
            yield Keeper(pool)
        finally:
            pool.submit(_stop).result(_START_S)
    asyncio.run(mine.start())


def _start(root: Path, port: int, password: str, log_path: Path, settings: Settings) -> None:
    global _server  # noqa: PLW0603 - this process has one server, and calls from outside have nothing else in common
    _server = PostgresServer(root, port, password, log_path, settings)
    asyncio.run(_server.start())


def _kill_and_start() -> float:
    assert _server is not None
    # The postmaster first, so that it starts no successors. The others would go on for a moment, and answer.
    _server.kill()
    others = processes_in(_server.data)
    for process in others:
        process.kill()
    psutil.wait_procs(others, timeout=_START_S)
    killed_at = time.monotonic()
    asyncio.run(_server.start())
    return killed_at


def _stop() -> None:
    assert _server is not None
    asyncio.run(_server.stop())
