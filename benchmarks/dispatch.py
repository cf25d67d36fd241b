"""How soon does a worker get a run, and how many go through? `python -m benchmarks.dispatch [--json FILE]`

One replica as a process of its own, one worker stream, a durable Postgres (`fsync` and `synchronous_commit` on). A run
is created as control creates it, given to the worker, and ended at once; all of that is in its log, with a receipt.

- **created → assigned**: from before CreateRun is called until the bare stream of a worker has the assignment; the next
  run is created when that one has ended.
- **created → handler running**: the same until the first line of an agent's function, in the process of a real worker.
- **beside a queue**: both for the runs of a person who has none waiting, while another person's runs wait, always so
  many, and keep all of the worker's slots busy. In the order of creation each would wait for the whole queue.
- **flat out**: runs from creation to end, 64 at a time.
- **bare queue** (floor): a table with `FOR UPDATE SKIP LOCKED`, by asyncpg: a row is inserted, taken and deleted, in
  a transaction each. It knows no owner, no log and no receipt.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import uvloop

from benchmarks.caller import Caller, caller, until_attached, worker_process
from benchmarks.measure import Figures, report
from benchmarks.stage import Replica, Stage, stage
from oa_platform.system.ids import new_id
from openagents.runtime.v1 import event_pb2, run_service_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub

SLOTS = 64
QUEUED = 1_000
"""Number of waiting runs in a queue. A worker that takes one soon finds another."""
QUEUE_SLOTS = 4
QUEUED_RUN_S = 0.01
BESIDE_A_QUEUE = f"{QUEUED:,} of another person wait, {QUEUE_SLOTS} slots, runs of {QUEUED_RUN_S * 1000:.0f} ms"
_REFILL_S = 0.05
_SPEC = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]))
_FINISH = event_pb2.EventBody(run_finished=event_pb2.RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED))


class Worker:
    """Ends each run `pause_s` after it got it. `on_run` is called with each run when it arrives."""

    def __init__(self, call: Any, pause_s: float) -> None:
        self._call = call
        self._pause_s = pause_s
        self._writing = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self.on_run: Callable[[str], None] = lambda _: None
        self.ended: dict[str, asyncio.Event] = {}
        self._reading = asyncio.create_task(self._read())

    def end_of(self, run_id: str) -> asyncio.Event:
        """The event that is set once the run's end is stored."""
        return self.ended.setdefault(run_id, asyncio.Event())

    async def close(self) -> None:
        """Give up the runs that it holds, and close the stream."""
        self._reading.cancel()
        for task in self._ending:
            task.cancel()
        await asyncio.gather(self._reading, *self._ending, return_exceptions=True)
        self._call.cancel()

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            match message.WhichOneof("message"):
                case "assignment":
                    run_id = message.assignment.run.run_id
                    self.on_run(run_id)
                    task = asyncio.create_task(self._end(run_id, message.assignment.lease_epoch))
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
                case "appended":
                    self.end_of(message.appended.run_id).set()

    async def _end(self, run_id: str, epoch: int) -> None:
        if self._pause_s:
            await asyncio.sleep(self._pause_s)
        append = pb.AppendEventsRequest(run_id=run_id, lease_epoch=epoch, idempotency_key="end", events=[_FINISH])
        async with self._writing:
            await self._call.write(pb.AttachRequest(append=append))


@asynccontextmanager
async def attached(scene: Stage, channel: grpc.aio.Channel, slots: int, pause_s: float = 0.0) -> AsyncIterator[Worker]:
    """A worker with `slots` slots, for a block."""
    call = WorkerServiceStub(channel).Attach(metadata=scene.as_worker)
    hello = pb.WorkerHello(name="bench", adapters=["exec"], max_concurrent_runs=slots)
    await call.write(pb.AttachRequest(attach=hello))
    await call.read()
    worker = Worker(call, pause_s)
    try:
        yield worker
    finally:
        await worker.close()


async def create(scene: Stage, channel: grpc.aio.Channel) -> str:
    """Create a run of the stage's person. Returns its id."""
    request = run_service_pb2.CreateRunRequest(idempotency_key=new_id("key"), spec=_SPEC)
    answer = await RunServiceStub(channel).CreateRun(request, metadata=scene.as_person)
    return str(answer.run.run_id)


async def one_at_a_time(scene: Stage, channel: grpc.aio.Channel, worker: Worker, setting: str, runs: int) -> Figures:
    """Measure from the call of CreateRun to the assignment."""
    came: dict[str, float] = {}

    def on_run(run_id: str) -> None:
        came[run_id] = time.perf_counter()

    worker.on_run = on_run
    latencies = []
    started = time.perf_counter()
    for _ in range(runs):
        begin = time.perf_counter()
        run_id = await create(scene, channel)
        await worker.end_of(run_id).wait()
        latencies.append((came[run_id] - begin) * 1000)
    return Figures("created → assigned", setting, runs, time.perf_counter() - started, latencies)


async def until_running(by: Caller, setting: str, runs: int, run_s: float = 0.0) -> Figures:
    """Measure from the call of CreateRun to the first line of the agent's function, for runs of `run_s` seconds."""
    latencies = []
    started = time.monotonic()
    for _ in range(runs):
        begin = time.monotonic()
        began = await by.result(await by.start("punctual", run_s))
        latencies.append((began - begin) * 1000)
    return Figures("created → handler running", setting, runs, time.monotonic() - started, latencies)


@asynccontextmanager
async def queue(crowd: Stage, start: Callable[[], Awaitable[str]]) -> AsyncIterator[None]:
    """Keep `QUEUED` runs of the crowd's person waiting, for a block; `start` starts another run."""
    connection = await asyncpg.connect(crowd.database.admin)
    count = "SELECT count(*) FROM runtime.runs WHERE user_id = $1 AND status = 'created'"

    async def fill() -> None:
        waiting = await connection.fetchval(count, crowd.user_id)
        await asyncio.gather(*(start() for _ in range(QUEUED - waiting)))

    async def keep_full() -> None:
        while True:
            await fill()
            await asyncio.sleep(_REFILL_S)

    await fill()
    filling = asyncio.create_task(keep_full())
    try:
        yield
        assert not filling.done(), filling
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        await connection.close()


async def assigned_beside_a_queue(scene: Stage, channel: grpc.aio.Channel, runs: int) -> Figures:
    """Measure one person's runs while another person's runs wait for slots that are always taken."""
    crowd = replace(scene, user_id=new_id("usr"))
    async with (
        queue(crowd, lambda: create(crowd, channel)),
        attached(scene, channel, slots=QUEUE_SLOTS, pause_s=QUEUED_RUN_S) as worker,
    ):
        return await one_at_a_time(scene, channel, worker, BESIDE_A_QUEUE, runs)


async def running_beside_a_queue(scene: Stage, replica: Replica, runs: int) -> Figures:
    """Measure the same in the process of a worker."""
    crowd = replace(scene, user_id=new_id("usr"))
    async with (
        grpc.aio.insecure_channel(replica.target) as channel,
        caller(scene, replica) as by_person,
        queue(crowd, lambda: Caller(crowd, channel).start("punctual", QUEUED_RUN_S)),
    ):
        with worker_process(scene, replica, slots=QUEUE_SLOTS):
            await until_attached(replica, 1)
            return await until_running(by_person, BESIDE_A_QUEUE, runs, QUEUED_RUN_S)


async def nothing_waits(scene: Stage, replica: Replica, runs: int) -> Figures:
    """Measure one run after the other, in the process of a worker that has no other work."""
    with worker_process(scene, replica, slots=SLOTS):
        await until_attached(replica, 1)
        async with caller(scene, replica) as by:
            await until_running(by, "warm-up", 50)
            return await until_running(by, "one at a time, nothing waits", runs)


async def flat_out(scene: Stage, channel: grpc.aio.Channel, worker: Worker, runs: int) -> Figures:
    """Measure from creation to end, with as many runs at a time as there are slots."""
    latencies: list[float] = []
    left = iter(range(runs))

    async def one_after_the_other() -> None:
        for _ in left:
            begin = time.perf_counter()
            await worker.end_of(await create(scene, channel)).wait()
            latencies.append((time.perf_counter() - begin) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(SLOTS)))
    return Figures("created → ended", f"flat out, {SLOTS} at a time", runs, time.perf_counter() - started, latencies)


async def bare_queue(dsn: str, runs: int, at_a_time: int) -> Figures:
    """Measure the floor."""
    pool = await asyncpg.create_pool(dsn, min_size=at_a_time, max_size=at_a_time)
    await pool.execute("CREATE TABLE IF NOT EXISTS bare_queue (id bigserial PRIMARY KEY, taken boolean DEFAULT false)")
    latencies: list[float] = []
    left = iter(range(runs))
    take = """
        UPDATE bare_queue SET taken = true WHERE id = (
            SELECT id FROM bare_queue WHERE NOT taken ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id
    """

    async def one_after_the_other() -> None:
        async with pool.acquire() as connection:
            for _ in left:
                begin = time.perf_counter()
                await connection.execute("INSERT INTO bare_queue DEFAULT VALUES")
                taken = await connection.fetchval(take)
                await connection.execute("DELETE FROM bare_queue WHERE id = $1", taken)
                latencies.append((time.perf_counter() - begin) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_a_time)))
    seconds = time.perf_counter() - started
    await pool.close()
    return Figures("bare queue (floor)", f"{at_a_time} at a time", runs, seconds, latencies)


async def measured(scene: Stage, replica: Replica, runs: int) -> list[Figures]:
    """All series."""
    rows = []
    async with grpc.aio.insecure_channel(replica.target) as channel:
        async with attached(scene, channel, SLOTS) as worker:
            await one_at_a_time(scene, channel, worker, "warm-up", 50)
            rows.append(await one_at_a_time(scene, channel, worker, "one at a time, nothing waits", runs))
            rows.append(await flat_out(scene, channel, worker, runs * 10))
        rows.append(await nothing_waits(scene, replica, runs))
        rows.append(await assigned_beside_a_queue(scene, channel, runs))
        rows.append(await running_beside_a_queue(scene, replica, runs))
    rows.append(await bare_queue(scene.database.admin, runs, 1))
    rows.append(await bare_queue(scene.database.admin, runs * 10, 16))
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--runs", type=int, default=300, help="runs of a series")
    arguments = parser.parse_args()
    with stage() as scene, scene.replica() as replica:
        rows = uvloop.run(measured(scene, replica, arguments.runs))
    report("dispatch: how soon does a worker get a run? (a row's events are runs)", rows, arguments.json)


if __name__ == "__main__":
    main()
