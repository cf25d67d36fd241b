"""Rows of runtime.runs <-> RunState."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from oa_base.clock import ns_of, time_of
from oa_runlog import wire
from oa_runlog.state import TOTAL_NAMES, RunState, RunStatus, Totals

_NO_TOTALS = Totals()
_NO_TOTALS_TEXT = "{}"


def _optional_time(ns: int | None) -> datetime | None:
    return None if ns is None else time_of(ns)


def state_of(row: Any) -> RunState:
    """The state in a row of runtime.runs."""
    asked, finished, finish = row["cancel_requested_time"], row["finish_time"], row["finish"]
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
        cancel_requested_ns=None if asked is None else ns_of(asked),
        cancel_reason=row["cancel_reason"],
        finish_ns=None if finished is None else ns_of(finished),
        finish=None if finish is None else wire.decode_finish(finish),
        totals=_NO_TOTALS if row["totals"] == _NO_TOTALS_TEXT else Totals(**json.loads(row["totals"])),
        paced_until_ns=row["paced_until_ns"],
    )


def moving_values(state: RunState) -> tuple[Any, ...]:
    """What a command may change, in the order of the statements: status … paced_until_ns."""
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
    )


def _totals_text(totals: Totals) -> str:
    return json.dumps({name: getattr(totals, name) for name in TOTAL_NAMES})
