"""How fast is a run with steps, from its start to its end? `python -m benchmarks.steps [--json FILE]`

One replica and one worker, each a process of its own, and a durable Postgres (`fsync` and `synchronous_commit` on). A
caller creates runs of an agent as control creates them, and sees their end in the log: the time is from before
CreateRun is called until the caller has `run.finished`. An agent does 1 step, or 10; a step costs nothing itself.

- **dbos** (peer): the same steps in a durable function of the library, awaited in the caller's process, on the same
  Postgres. There is no worker to give it to, nobody who watches, and no receipt.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.measure import Figures, report
from benchmarks.peers import dbos_library
from benchmarks.readers import one_partition, through_replica
from benchmarks.stage import REPOSITORY, Stage, stage
from oa_platform.system.ids import new_id
from openagents.runtime.v1 import event_pb2, run_service_pb2
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub

SLOTS = 32
STEPS = (1, 10)
AT_A_TIME = (1, SLOTS)
Call = Callable[[int], Awaitable[object]]
"""Does so many steps, from the start to the end that the caller sees."""


@contextmanager
def worker(scene: Stage, target: str) -> Iterator[None]:
    """A worker's process, for a block."""
    token = dict(scene.as_worker)["authorization"].removeprefix("Bearer ")
    where = {"BENCH_WORKER_TOKEN": token, "BENCH_RUNTIME": target, "BENCH_SLOTS": str(SLOTS)}
    command = [sys.executable, "-m", "benchmarks.worker_process"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **where})
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


class Caller:
    """Creates runs, and hears of their ends."""

    def __init__(self, scene: Stage, channel: grpc.aio.Channel) -> None:
        self._scene = scene
        self._runs = RunServiceStub(channel)
        self._ends: dict[str, asyncio.Future[event_pb2.RunFinished]] = {}

    async def run(self, steps: int) -> None:
        """One run, to its end."""
        spec = event_pb2.RunSpec(adapter="adding", agent=event_pb2.AgentSpec(input_json=str(steps)))
        request = run_service_pb2.CreateRunRequest(idempotency_key=new_id("key"), spec=spec)
        answer = await self._runs.CreateRun(request, metadata=self._scene.as_person)
        finish = await self._end_of(answer.run.run_id)
        assert finish.result_json == str(steps), finish

    def _end_of(self, run_id: str) -> asyncio.Future[event_pb2.RunFinished]:
        return self._ends.setdefault(run_id, asyncio.get_running_loop().create_future())

    async def listen(self, target: str) -> None:
        """Until cancelled."""
        async for _, events in through_replica(target, 0):
            for event in map(event_pb2.RunEvent.FromString, events):
                if event.body.HasField("run_finished"):
                    self._end_of(event.run_id).set_result(event.body.run_finished)


@asynccontextmanager
async def caller(scene: Stage, target: str) -> AsyncIterator[Caller]:
    """A caller with its own connection, for a block."""
    async with grpc.aio.insecure_channel(target) as channel:
        made = Caller(scene, channel)
        listening = asyncio.create_task(made.listen(target))
        try:
            yield made
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def series(subject: str, call: Call, steps: int, at_a_time: int, runs: int) -> Figures:
    """So many runs, so many at a time."""
    latencies: list[float] = []
    left = iter(range(runs))

    async def one_after_the_other() -> None:
        for _ in left:
            begin = time.perf_counter()
            await call(steps)
            latencies.append((time.perf_counter() - begin) * 1000)

    await call(steps)
    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_a_time)))
    seconds = time.perf_counter() - started
    return Figures(subject, f"{steps} steps, {at_a_time} at a time", runs, seconds, latencies)


async def measured(scene: Stage, target: str, flow: dbos_library.Flow, runs: int) -> list[Figures]:
    """Every series, ours and the peer's in turns."""
    rows = []
    async with caller(scene, target) as ours:
        for _ in range(20):  # the worker's process is there, and both have their code and statements ready
            await asyncio.gather(ours.run(1), flow(1))
        for steps in STEPS:
            for at_a_time in AT_A_TIME:
                count = runs if at_a_time == 1 else runs * 4
                rows.append(await series("runtime and worker", ours.run, steps, at_a_time, count))
                rows.append(await series(f"dbos {dbos_library.version()}", flow, steps, at_a_time, count))
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--runs", type=int, default=200, help="runs of a series; four times as many at once")
    arguments = parser.parse_args()
    with stage() as scene, dbos_library.flow(scene.database.admin) as flow:
        asyncio.run(one_partition(scene))
        with scene.replica() as replica, worker(scene, replica.target):
            rows = uvloop.run(measured(scene, replica.target, flow, arguments.runs))
    report("steps: how fast is a run with steps? (a row's events are runs)", rows, arguments.json)


if __name__ == "__main__":
    main()
