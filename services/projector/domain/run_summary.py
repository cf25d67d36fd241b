"""What an event does to the summary of its run: a pure function, so that the same log gives the same summaries.

The document of a summary is `openagents.projection.v1.RunSummary`; this is its content as plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from oa_runlog.events import (
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCall,
    Usage,
)
from oa_runlog.state import MAX_TOTAL, RunStatus
from oa_runlog.titles import titled
from oa_runlog.transitions import next_status, trigger
from services.projector.domain.log import LogRefused


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a list of runs shows of one, as of event `latest_seq`.

    Times are nanoseconds since the Unix epoch; those that are None, and `finish`, have not come yet. `worker_id` is
    that of the newest attempt. The counts stop at `oa_runlog.state.MAX_TOTAL`.
    """

    run_id: str
    user_id: str
    org_id: str
    title: str
    adapter: str
    thread_id: str
    status: RunStatus
    latest_seq: int
    create_ns: int
    start_ns: int | None = None
    finish_ns: int | None = None
    finish: RunFinished | None = None
    worker_id: str = ""
    attempt: int = 0
    text_bytes: int = 0
    tool_calls: int = 0
    total_tokens: int = 0


def project(summary: RunSummary | None, event: RunEvent) -> RunSummary:
    """The summary after `event`; None stands for a run of which nothing has been seen.

    Raises LogRefused(run_hole) when the event is not the run's next, LogRefused(invalid_event) when the run's state
    machine does not allow it: then the log is not what the authority writes, and nothing may be built on it.
    """
    expected = 1 if summary is None else summary.latest_seq + 1
    if event.seq != expected:
        raise LogRefused("run_hole", f"{event.run_id}: seq {expected} was expected and {event.seq} came")
    status = next_status(None if summary is None else summary.status, event.body)
    if status is None:
        before = "no run" if summary is None else summary.status
        raise LogRefused("invalid_event", f"{event.run_id} seq {event.seq}: {trigger(event.body)} after {before}")
    if summary is None:
        return _created(event, status)
    return replace(summary, status=status, latest_seq=event.seq, **_changes(summary, event))


def _created(event: RunEvent, status: RunStatus) -> RunSummary:
    assert isinstance(event.body, RunCreated)  # the table allows nothing else for a new run
    spec = titled(event.body.spec)  # the authority records every run with a title; a log of others may not
    return RunSummary(
        run_id=event.run_id,
        user_id=event.body.user_id,
        org_id=event.body.org_id,
        title=spec.title,
        adapter=spec.adapter,
        thread_id=spec.thread_id,
        status=status,
        latest_seq=event.seq,
        create_ns=event.recorded_ns,
    )


def _changes(summary: RunSummary, event: RunEvent) -> dict[str, Any]:
    """The members of the summary that the event gives another value, besides status and seq."""
    match event.body:
        case RunStarted(worker_id=worker_id, attempt=attempt):
            first = event.recorded_ns if summary.start_ns is None else summary.start_ns
            return {"worker_id": worker_id, "attempt": attempt, "start_ns": first}
        case RunFinished():
            return {"finish": event.body, "finish_ns": event.recorded_ns}
        case TextDelta(data=data):
            return {"text_bytes": _plus(summary.text_bytes, len(data))}
        case ToolCall():
            return {"tool_calls": _plus(summary.tool_calls, 1)}
        case Usage(input_tokens=read, output_tokens=written):
            return {"total_tokens": _plus(summary.total_tokens, read + written)}
        case _:
            return {}


def _plus(total: int, amount: int) -> int:
    return min(total + amount, MAX_TOTAL)
