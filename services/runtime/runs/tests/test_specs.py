"""A command that nothing can start is refused when a run or a schedule of it is asked for, with its field."""

from __future__ import annotations

import pytest

from openagents.runtime.v1 import event_pb2, run_service_pb2
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.tests.rig import Replica, Somebody, refusal_of_call

_UNSTARTABLE = [
    (event_pb2.ExecSpec(argv=[""]), "missing_field", "spec.exec.argv[0]"),
    (event_pb2.ExecSpec(argv=["true"], environment={"": "x"}), "invalid_value", "spec.exec.environment"),
    (event_pb2.ExecSpec(argv=["true"], environment={"A=B": "x"}), "invalid_value", "spec.exec.environment"),
]


@pytest.mark.parametrize(("command", "reason", "field"), _UNSTARTABLE)
async def test_neither_a_run_nor_a_schedule_takes_it(
    runtime: Replica, who: Somebody, command: event_pb2.ExecSpec, reason: str, field: str
) -> None:
    spec = event_pb2.RunSpec(adapter="exec", exec=command)
    run = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec)
    schedule = pb.CreateScheduleRequest(idempotency_key="k", name="nightly", spec=spec)
    schedule.interval.every_ms = 3_600_000
    for call in (
        runtime.runs.CreateRun(run, metadata=who.as_person()),
        runtime.schedules.CreateSchedule(schedule, metadata=who.as_person()),
    ):
        refused = await refusal_of_call(call)
        assert (refused.reason, refused.field) == (reason, field)
