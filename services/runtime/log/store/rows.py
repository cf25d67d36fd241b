"""Rows of runtime.runs <-> RunState."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from oa_base.clock import ns_of, time_of
from oa_runlog import wire
from oa_runlog.events import AT_ONCE, RunSpec
from oa_runlog.state import TOTAL_NAMES, RunState, RunStatus, Totals

_NO_TOTALS = Totals()
_NO_TOTALS_TEXT = "{}"


def _optional_time(ns: int | None) -> datetime | None:
    return None if ns is None else time_of(ns)


def _optional_ns(time: datetime | None) -> int | None:
    return None if time is None else ns_of(time)


def state_of(row: Any) -> RunState:
    """The state in a row of runtime.runs."""
    finish = row["finish"]
    return RunState(
        run_id=row["run_id"],
        org_id=row["org_id"],
        user_id=row["user_id"],
        status=RunStatus(row["status"]),
        latest_seq=row["latest_seq"],
        chain_head=row["chain_head"],
        create_ns=ns_of(row["create_time"]),
        lease_epoch=row["lease_epoch"],
        worker_id=row["worker_id"],
        fenced=row["fenced"],
        attempt=row["attempt"],
        cancel_requested_ns=_optional_ns(row["cancel_requested_time"]),
        cancel_reason=row["cancel_reason"],
        finish_ns=_optional_ns(row["finish_time"]),
        finish=None if finish is None else wire.decode_finish(finish),
        totals=_NO_TOTALS if row["totals"] == _NO_TOTALS_TEXT else Totals(**json.loads(row["totals"])),
        paced_until_ns=row["paced_until_ns"],
        queue=AT_ONCE if row["queue"] is None else wire.decode_queue(row["queue"]),
        not_before_ns=_optional_ns(row["not_before_time"]),
        deadline_ns=_optional_ns(row["deadline_time"]),
        failures=row["failures"],
        thread_id=row["thread_id"],
        parent_run_id=row["parent_run_id"],
    )


def queue_values(spec: RunSpec) -> tuple[Any, ...]:
    """Values the queue is read by, in the order of the statements: queue, priority, concurrency_key … thread_policy."""
    queue, share = spec.queue, spec.queue.concurrency
    stated = None if queue == AT_ONCE else wire.encode_queue(queue)
    key, limit = (share.key, share.limit) if share else ("", 0)
    return stated, queue.priority, key, limit, spec.thread_id, str(spec.thread_policy or "")


def moving_values(state: RunState) -> tuple[Any, ...]:
    """The values that a command may change, in the order of the statements: status … failures."""
    totals = _NO_TOTALS_TEXT if state.totals == _NO_TOTALS else _totals_text(state.totals)
    return (
        str(state.status),
        state.latest_seq,
        state.chain_head,
        state.lease_epoch,
        state.worker_id,
        state.fenced,
        state.attempt,
        _optional_time(state.cancel_requested_ns),
        state.cancel_reason,
        _optional_time(state.finish_ns),
        None if state.finish is None else wire.encode_finish(state.finish),
        totals,
        state.paced_until_ns,
        _optional_time(state.not_before_ns),
        _optional_time(state.deadline_ns),
        state.failures,
    )


def _totals_text(totals: Totals) -> str:
    return json.dumps({name: getattr(totals, name) for name in TOTAL_NAMES})
