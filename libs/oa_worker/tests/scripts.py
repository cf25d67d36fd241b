"""Adapters for tests, and what their runs leave in the log."""

from __future__ import annotations

import asyncio

from oa_worker import Assignment, Emit, WorkerLimits
from oa_worker.tests.fake_runtime import RUN, FakeRuntime, Faults
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import EventBody, Message, RunFinished, RunSpec

QUICK = WorkerLimits(
    flush_interval_ms=5, reconnect_min_ms=10, reconnect_max_ms=50, retry_min_ms=5, drain_timeout_ms=60_000
)


SUCCEEDED = RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED)


def message(words: str) -> EventBody:
    return EventBody(message=Message(role=event_pb2.MESSAGE_ROLE_ASSISTANT, text=words))


class Script:
    """An adapter that emits numbered messages."""

    name = "script"

    def __init__(self, count: int = 20) -> None:
        self.count = count
        self.assignments: list[Assignment] = []
        self.stopped = 0

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        self.assignments.append(assignment)
        try:
            for number in range(self.count):
                await emit(message(str(number)))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return SUCCEEDED


class Patient(Script):
    """An adapter that works until it is canceled or stopped."""

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        self.assignments.append(assignment)
        await emit(message("0"))
        try:
            await assignment.cancel.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return RunFinished(outcome=event_pb2.RUN_OUTCOME_CANCELED, reason="canceled")


def scripted(*run_ids: str, faults: Faults | None = None, per_second: int = 100_000) -> FakeRuntime:
    specs = {run_id: RunSpec(adapter="script") for run_id in run_ids or (RUN,)}
    return FakeRuntime(specs, faults, per_second)


def numbers(runtime: FakeRuntime, run_id: str = RUN) -> list[str]:
    return [event.message.text for event in runtime.logs[run_id].events if event.HasField("message")]
