"""Processes of workers, and a caller that starts runs and reads the log."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc.aio

from benchmarks.readers import AS_PROJECTOR, MESSAGE_LIMIT
from benchmarks.stage import REPOSITORY, Replica, Stage
from oa_platform.system.ids import new_id
from openagents.runtime.v1 import event_pb2, log_service_pb2, run_service_pb2
from openagents.runtime.v1.log_service_pb2_grpc import LogServiceStub
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceStub

PATIENCE_S = 120.0
"""Maximum duration of anything."""
_POLL_S = 0.02
_AWAITED = ("custom", "run_finished")


@contextmanager
def worker_process(scene: Stage, replica: Replica, *, slots: int, count: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A process with `count` workers of `slots` slots each, for a block; they attach soon.

    See `benchmarks.worker_process`.
    """
    token = dict(scene.as_worker)["authorization"].removeprefix("Bearer ")
    where = {"BENCH_WORKER_TOKEN": token, "BENCH_RUNTIME": replica.target}
    how_many = {"BENCH_SLOTS": str(slots), "BENCH_WORKERS": str(count)}
    command = [sys.executable, "-m", "benchmarks.worker_process"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **where, **how_many})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


async def until_attached(replica: Replica, count: int) -> None:
    """Wait until `count` workers are attached."""
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(replica.metric, "oa_runtime_workers_attached") != count:
            await asyncio.sleep(_POLL_S)


class Caller:
    """Creates runs for the stage's person as control does, and hears of their stored events."""

    def __init__(self, scene: Stage, channel: grpc.aio.Channel) -> None:
        self._scene = scene
        self._runs = RunServiceStub(channel)
        self._log = LogServiceStub(channel)
        self._heard: dict[tuple[str, str], asyncio.Future[event_pb2.EventBody]] = {}

    async def start(self, agent: str, given: object) -> str:
        """Start a run of an agent. Returns its id."""
        spec = event_pb2.RunSpec(adapter=agent, agent=event_pb2.AgentSpec(input_json=json.dumps(given)))
        request = run_service_pb2.CreateRunRequest(idempotency_key=new_id("key"), spec=spec)
        return str((await self._runs.CreateRun(request, metadata=self._scene.as_person)).run.run_id)

    async def said(self, run_id: str) -> dict[str, Any]:
        """The data of the first custom event that the run's agent emits. Needs `listen`."""
        return dict((await self._first("custom", run_id)).custom.data)

    async def result(self, run_id: str) -> Any:
        """The result of the run's agent. Needs `listen`."""
        return _result((await self._first("run_finished", run_id)).run_finished)

    async def polled_result(self, run_id: str) -> Any:
        """The same for a caller that polls instead of listening; it gets the result some ms later."""
        request = run_service_pb2.GetRunRequest(run_id=run_id)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                run = (await self._runs.GetRun(request, metadata=self._scene.as_person)).run
                if run.HasField("finish"):
                    return _result(run.finish)
                await asyncio.sleep(_POLL_S)

    async def _first(self, kind: str, run_id: str) -> event_pb2.EventBody:
        async with asyncio.timeout(PATIENCE_S):
            return await self._future(kind, run_id)

    def _future(self, kind: str, run_id: str) -> asyncio.Future[event_pb2.EventBody]:
        return self._heard.setdefault((kind, run_id), asyncio.get_running_loop().create_future())

    async def heads(self) -> log_service_pb2.DescribeLogResponse:
        """The current heads of the log."""
        return await self._log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)

    async def listen(self, described: log_service_pb2.DescribeLogResponse) -> None:
        """Hear everything after these heads, until canceled."""
        request = log_service_pb2.TailLogRequest(epoch=described.epoch, after=described.heads)
        async for message in self._log.TailLog(request, metadata=AS_PROJECTOR):
            for event in map(event_pb2.RunEvent.FromString, message.events):
                kind = event.body.WhichOneof("kind")
                if kind in _AWAITED and not (first := self._future(kind, event.run_id)).done():
                    first.set_result(event.body)


def _result(finish: event_pb2.RunFinished) -> Any:
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED, finish
    return json.loads(finish.result_json)


@asynccontextmanager
async def caller(scene: Stage, replica: Replica) -> AsyncIterator[Caller]:
    """A caller with its own connection that listens, for a block."""
    async with grpc.aio.insecure_channel(replica.target, options=MESSAGE_LIMIT) as channel:
        made = Caller(scene, channel)
        listening = asyncio.create_task(made.listen(await made.heads()))
        try:
            yield made
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
