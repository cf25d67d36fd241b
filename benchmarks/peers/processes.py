"""Servers that the gateway is compared with, as processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from benchmarks.measure import on_core

CENTRIFUGE = Path(__file__).parent / "centrifuge"
"""The source of the server that is written in Go."""
PATIENCE_S = 60.0


@asynccontextmanager
async def server_process(core: int, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process on one core, which takes lines and prints lines, and ends with the block."""
    pipe = asyncio.subprocess.PIPE
    with on_core(core):
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process, text: str = "") -> str:
    """The next line that the process prints, after `text` has been sent to it."""
    assert process.stdin is not None
    assert process.stdout is not None
    if text:
        process.stdin.write(f"{text}\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().strip()


def cpu_s_of(pid: int) -> float:
    """The CPU time of a process so far, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
