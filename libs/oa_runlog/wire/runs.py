"""The state of a run -> `Run`, as services show it."""

from __future__ import annotations

from oa_runlog.events import RunSpec
from oa_runlog.state import RunState, RunStatus
from oa_runlog.wire.fields import EnumMap
from oa_runlog.wire.finishes import finish_to_wire
from oa_runlog.wire.specs import spec_to_wire
from openagents.runtime.v1 import run_pb2

_STATUSES = EnumMap(RunStatus, run_pb2.RunStatus, "RUN_STATUS_")


def run_to_wire(state: RunState, spec: RunSpec, events_topic: str) -> run_pb2.Run:
    """The message for a run as the authority knows it."""
    run = run_pb2.Run(
        run_id=state.run_id,
        user_id=state.user_id,
        org_id=state.org_id,
        spec=spec_to_wire(spec),
        status=_STATUSES.to_wire(state.status),
        latest_seq=state.latest_seq,
        chain_head=state.chain_head,
        lease_epoch=state.lease_epoch,
        worker_id=state.holder,
        attempt=state.attempt,
        events_topic=events_topic,
        parent_run_id=state.parent_run_id,
    )
    run.create_time.FromNanoseconds(state.create_ns)
    if state.not_before_ns is not None:
        run.not_before_time.FromNanoseconds(state.not_before_ns)
    if state.deadline_ns is not None:
        run.deadline_time.FromNanoseconds(state.deadline_ns)
    if state.finish_ns is not None:
        run.finish_time.FromNanoseconds(state.finish_ns)
    if state.finish is not None:
        run.finish.CopyFrom(finish_to_wire(state.finish))
    return run


def status_from_wire(number: int) -> RunStatus:
    """A run's status from its number on the wire. Raises Refusal `invalid_enum`."""
    status: RunStatus = _STATUSES.from_wire(number, "status")
    return status
