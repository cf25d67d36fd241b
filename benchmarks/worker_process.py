"""Workers in a process of their own, for benchmarks: agents of the SDK, each attached over a connection of its own.

`BENCH_WORKER_TOKEN` is the workers' token, `BENCH_RUNTIME` the runtime to which they attach, `BENCH_WORKERS` their
number, and `BENCH_SLOTS` the number of runs that each takes at a time. The process ends at SIGTERM, and gives up its
runs at once.

They run on uvloop, as the services do, and as everything that they are compared with in the caller's process does.

Moments are of the machine's monotonic clock, which all processes share, in seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Literal

import uvloop

from oa_platform.process.signals import stop_signals
from oa_worker import WorkerLimits
from oa_worker.sdk.transport.tokens import WorkerToken
from openagents import Run, Worker


class _Given:
    """The token of the environment."""

    async def get(self) -> WorkerToken:
        return WorkerToken(os.environ["BENCH_WORKER_TOKEN"], 600.0, os.environ["BENCH_RUNTIME"])


async def add(number: int) -> int:
    """A step that costs nothing."""
    return number + 1


async def adding(run: Run[int]) -> int:
    """Counts to its input, a step each."""
    number = 0
    for _ in range(run.input):
        number = await run.step("add", add, number)
    return number


async def punctual(run: Run[float]) -> float:
    """Lasts for so many seconds, and returns when it began."""
    began = time.monotonic()
    await asyncio.sleep(run.input)
    return began


async def lasting(run: Run[None]) -> float:
    """Says which process has it, and lasts until that is gone; on the next worker it returns when it began there."""
    began = time.monotonic()
    if run.attempt == 1:
        await run.emit("bench.began", {"pid": os.getpid()})
        await asyncio.Event().wait()
    return began


@dataclass
class Talk:
    """What to say, for how many seconds: pieces of text, or events with a text, each of `piece_bytes`."""

    kind: Literal["text", "events"]
    seconds: float
    piece_bytes: int


@dataclass
class Talked:
    """When it began, when everything was stored, and how many pieces it said."""

    began: float
    stored: float
    pieces: int


async def talking(run: Run[Talk]) -> Talked:
    """Says as much as the log takes."""
    text = "x" * run.input.piece_bytes
    began, pieces = time.monotonic(), 0
    async with run.assistant() as out:
        while time.monotonic() < began + run.input.seconds:
            if run.input.kind == "text":
                await out.write(text)
            else:
                await run.emit("bench.said", {"text": text})
            pieces += 1
    await run.now()  # a step: once it is stored, everything that was said before is stored too
    return Talked(began, time.monotonic(), pieces)


def made(number: int) -> Worker:
    """One of the workers."""
    # Each has a keepalive interval of its own because gRPC lets channels with the same options share a connection.
    limits = WorkerLimits(drain_timeout_ms=0, keepalive_interval_ms=WorkerLimits.keepalive_interval_ms + number)
    worker = Worker(f"bench-{number}", _Given(), slots=int(os.environ["BENCH_SLOTS"]), limits=limits)
    worker.agent("adding", input=int, output=int)(adding)
    worker.agent("punctual", input=float, output=float)(punctual)
    worker.agent("lasting", input=type(None), output=float)(lasting)
    worker.agent("talking", input=Talk, output=Talked)(talking)
    return worker


async def _main() -> None:
    workers = [made(number) for number in range(int(os.environ["BENCH_WORKERS"]))]

    def drain(_: int) -> None:
        for worker in workers:
            worker.drain()

    with stop_signals(drain):
        await asyncio.gather(*(worker.serve() for worker in workers))


if __name__ == "__main__":
    uvloop.run(_main())
