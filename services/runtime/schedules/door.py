"""ScheduleService."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_khala.topics import run_events
from oa_platform.auth.identity import current_principal
from oa_runlog import wire
from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.runtime.v1 import schedule_service_pb2 as pb
from openagents.runtime.v1.schedule_service_pb2_grpc import ScheduleServiceServicer
from services.runtime.schedules.app.schedules import Schedules
from services.runtime.schedules.domain.schedule import Draft, Overlap, Schedule, ScheduledTime
from services.runtime.schedules.domain.timing import CronTiming, IntervalTiming, Timing

_OVERLAPS: Mapping[pb.OverlapPolicy.ValueType, Overlap] = {
    pb.OVERLAP_POLICY_UNSPECIFIED: Overlap.SKIP,
    pb.OVERLAP_POLICY_SKIP: Overlap.SKIP,
    pb.OVERLAP_POLICY_ALLOW: Overlap.ALLOW,
    pb.OVERLAP_POLICY_CANCEL_PREVIOUS: Overlap.CANCEL_PREVIOUS,
}
_ID = re.compile(r"sch_[0-9A-HJKMNP-TV-Z]{26}")
_UTC = "UTC"


class ScheduleApi(ScheduleServiceServicer):
    """Schedules of the caller's org."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Any) -> pb.CreateScheduleResponse:
        """Create a schedule."""
        principal = current_principal()
        schedule, existed = await self._schedules.create(principal, request.idempotency_key, draft_from_wire(request))
        return pb.CreateScheduleResponse(schedule=schedule_message(schedule), already_created=existed)

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Any) -> pb.GetScheduleResponse:
        """Show a schedule."""
        shown = await self._schedules.get(current_principal(), request.schedule)
        return pb.GetScheduleResponse(
            schedule=schedule_message(shown.schedule),
            next_times=map(_timestamp, shown.next_times),
            recent=map(_time_message, shown.recent),
        )

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Any) -> pb.ListSchedulesResponse:
        """Return a page of schedules."""
        principal = current_principal()
        digest = _list_digest(principal)
        below = decode_page_token(request.page_token, digest)
        if below and not _ID.fullmatch(below):
            text = "the page token is not one that this query returned; start again without one"
            raise Refusal("invalid_page_token", text, field="page_token")
        schedules, next_below = await self._schedules.page(principal, request.page_size, below)
        return pb.ListSchedulesResponse(
            schedules=[schedule_message(one, with_spec=False) for one in schedules],
            next_page_token=encode_page_token(next_below, digest),
        )

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Any) -> pb.PauseScheduleResponse:
        """Pause a schedule."""
        schedule = await self._schedules.pause(current_principal(), request.schedule, request.reason)
        return pb.PauseScheduleResponse(schedule=schedule_message(schedule))

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Any) -> pb.ResumeScheduleResponse:
        """Resume a schedule."""
        schedule = await self._schedules.resume(current_principal(), request.schedule)
        return pb.ResumeScheduleResponse(schedule=schedule_message(schedule))

    async def TriggerSchedule(self, request: pb.TriggerScheduleRequest, context: Any) -> pb.TriggerScheduleResponse:
        """Start a run now."""
        run, existed = await self._schedules.trigger(current_principal(), request.schedule, request.idempotency_key)
        message = wire.run_to_wire(run.state, run.spec, run_events(run.state.run_id))
        return pb.TriggerScheduleResponse(run=message, already_started=existed)

    async def BackfillSchedule(self, request: pb.BackfillScheduleRequest, context: Any) -> pb.BackfillScheduleResponse:
        """Start the runs of past times."""
        start, end = moment(request.from_time, "from_time"), moment(request.to_time, "to_time")
        done = await self._schedules.backfill(current_principal(), request.schedule, start, end)
        runs = [
            pb.BackfilledRun(nominal_time=_timestamp(one.nominal), run_id=one.run_id, already_started=one.existed)
            for one in done
        ]
        return pb.BackfillScheduleResponse(runs=runs)

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Any) -> pb.DeleteScheduleResponse:
        """Delete a schedule."""
        ended = await self._schedules.delete(current_principal(), request.schedule)
        return pb.DeleteScheduleResponse(already_deleted=ended)


def draft_from_wire(request: pb.CreateScheduleRequest) -> Draft:
    """The draft in a request. Raises Refusal."""
    spec = wire.encode_spec(wire.asked_spec_from_wire(request.spec, path="spec."))
    timing = timing_from_wire(request)
    return Draft(request.name, timing, _OVERLAPS[request.overlap], request.catch_up_ms, spec)


def timing_from_wire(request: pb.CreateScheduleRequest) -> Timing:
    """The timing, as it was sent. Raises Refusal."""
    if request.WhichOneof("timing") == "cron":
        return CronTiming(request.cron.expression, request.cron.time_zone or _UTC)
    interval = request.interval
    anchor = moment(interval.anchor_time, "interval.anchor_time") if interval.HasField("anchor_time") else None
    return IntervalTiming(interval.every_ms, anchor)


def moment(time: Timestamp, field: str) -> datetime:
    """The moment in a message, in whole microseconds. Raises Refusal `invalid_value`."""
    try:
        return time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        text = "this is no moment of the years 1 to 9999; send one"
        raise Refusal("invalid_value", text, field=field) from None


def schedule_message(schedule: Schedule, *, with_spec: bool = True) -> pb.Schedule:
    """The message for a schedule."""
    spec = wire.spec_to_wire(wire.decode_spec(schedule.spec))
    message = pb.Schedule(
        schedule_id=schedule.schedule_id,
        name=schedule.name,
        org_id=schedule.org_id,
        user_id=schedule.user_id,
        overlap=pb.OverlapPolicy.Value(f"OVERLAP_POLICY_{schedule.overlap.name}"),
        catch_up_ms=schedule.catch_up_ms,
        spec=spec if with_spec else None,
        adapter=spec.adapter,
        status=pb.ScheduleStatus.Value(f"SCHEDULE_STATUS_{schedule.status.name}"),
        pause_reason=schedule.pause_reason,
        create_time=_timestamp(schedule.create_time),
        next_time=_timestamp(schedule.next_time),
        last_run_id=schedule.last_run_id,
        started=schedule.started,
        skipped=schedule.skipped,
        refused=schedule.refused,
        refused_in_row=schedule.refused_in_row,
    )
    match schedule.timing:
        case CronTiming(expression, time_zone):
            message.cron.CopyFrom(pb.CronTiming(expression=expression, time_zone=time_zone))
        case IntervalTiming(every_ms, anchor):
            assert anchor is not None, "anchored when it was created"
            message.interval.CopyFrom(pb.IntervalTiming(every_ms=every_ms, anchor_time=_timestamp(anchor)))
    return message


def _time_message(time: ScheduledTime) -> pb.ScheduledTime:
    assert time.recorded is not None, "it was read"
    return pb.ScheduledTime(
        nominal_time=_timestamp(time.nominal),
        record_time=_timestamp(time.recorded),
        cause=pb.ScheduledCause.Value(f"SCHEDULED_CAUSE_{time.cause.name}"),
        outcome=pb.ScheduledOutcome.Value(f"SCHEDULED_OUTCOME_{time.outcome.name}"),
        times=time.times,
        reason=time.reason,
        message=time.message,
        run_id=time.run_id,
    )


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _list_digest(principal: Principal) -> bytes:
    """Identifies a list, so that a page token of one org can't be used in another."""
    return hashlib.sha256(f"ListSchedules\n{principal.org_id}".encode()).digest()
