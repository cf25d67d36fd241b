"""Schedules as commands send and return them: plain values, and the mapping to the contracts' messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from oa_runlog.events import RunSpec
from oa_runlog.wire import spec_to_wire
from openagents.runtime.v1 import schedule_service_pb2 as pb

OVERLAPS = tuple(name.removeprefix("OVERLAP_POLICY_").lower() for name in pb.OverlapPolicy.keys()[1:])
"""All policies for a time at which the last run has not ended."""
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


@dataclass(frozen=True)
class Cron:
    """Times by a cron expression (minute, hour, day of month, month, day of week), read in an IANA time zone."""

    expression: str
    time_zone: str = "UTC"


@dataclass(frozen=True)
class Every:
    """Times at a fixed distance: each is a multiple of it away from the anchor, or from the creation without one.
    The anchor has a time zone."""

    distance: timedelta
    anchor: datetime | None = None


@dataclass(frozen=True)
class Schedule:
    """A schedule. `timing` describes its times in words. Moments are RFC 3339, and empty if there is none.

    `status`: active, paused or deleted. `started`, `skipped` and `refused` count times.
    """

    schedule_id: str
    name: str
    owner: str
    adapter: str
    timing: str
    overlap: str
    catch_up_ms: int
    status: str
    pause_reason: str
    created_at: str
    next_at: str
    last_run_id: str
    started: int
    skipped: int
    refused: int
    document: JsonDocument


@dataclass(frozen=True)
class ScheduledTime:
    """The record of a time, or of several (`times`) that were skipped together, of which this is the newest.

    `cause`: clock, trigger or backfill. `outcome`: started, skipped or refused; `reason` and `message` say why.
    """

    nominal_at: str
    recorded_at: str
    cause: str
    outcome: str
    times: int
    reason: str
    message: str
    run_id: str


@dataclass(frozen=True)
class ScheduleDetails:
    """A schedule, its next times, and the records of its last ones, newest first."""

    schedule: Schedule
    next_times: tuple[str, ...]
    recent: tuple[ScheduledTime, ...]
    document: JsonDocument


@dataclass(frozen=True)
class SchedulePage:
    """A page of schedules; `next_page_token` is empty on the last page."""

    schedules: tuple[Schedule, ...]
    next_page_token: str


@dataclass(frozen=True)
class BackfilledRun:
    """The run of a past time. `existed`: the time already had its run."""

    nominal_at: str
    run_id: str
    existed: bool
    document: JsonDocument


def create_request(
    name: str, timing: Cron | Every, spec: RunSpec, overlap: str, catch_up_ms: int, idempotency_key: str
) -> pb.CreateScheduleRequest:
    """Return the request for a schedule. Raises Refusal `invalid_enum` for an overlap that is not in OVERLAPS."""
    if overlap not in OVERLAPS:
        known = ", ".join(OVERLAPS)
        text = f"{overlap!r} says nothing about runs that overlap; give one of {known}"
        raise Refusal("invalid_enum", text, field="overlap")
    request = pb.CreateScheduleRequest(
        idempotency_key=idempotency_key,
        name=name,
        overlap=pb.OverlapPolicy.Value(f"OVERLAP_POLICY_{overlap.upper()}"),
        catch_up_ms=catch_up_ms,
        spec=spec_to_wire(spec),
    )
    if isinstance(timing, Cron):
        request.cron.expression, request.cron.time_zone = timing.expression, timing.time_zone
        return request
    request.interval.every_ms = max(0, milliseconds(timing.distance))
    if timing.anchor is not None:
        request.interval.anchor_time.CopyFrom(timestamp(timing.anchor))
    return request


def duration_words(duration_ms: int) -> str:
    """A duration in the largest unit that it is a whole number of, as options take it: 90m."""
    unit, size = next((unit, size) for unit, size in _UNITS if duration_ms % size == 0)
    return f"{duration_ms // size}{unit}"


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds, rounded down."""
    return duration // timedelta(milliseconds=1)


def timestamp(moment: datetime) -> Timestamp:
    """The message for a moment; one without a time zone is UTC."""
    message = Timestamp()
    message.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return message


def schedule(message: pb.Schedule) -> Schedule:
    """The schedule in a message."""
    return Schedule(
        schedule_id=message.schedule_id,
        name=message.name,
        owner=message.user_id,
        adapter=message.adapter,
        timing=_timing(message),
        overlap=_word(pb.OverlapPolicy.Name, message.overlap, "OVERLAP_POLICY_"),
        catch_up_ms=message.catch_up_ms,
        status=_word(pb.ScheduleStatus.Name, message.status, "SCHEDULE_STATUS_"),
        pause_reason=message.pause_reason,
        created_at=_time(message.create_time),
        next_at=_time(message.next_time),
        last_run_id=message.last_run_id,
        started=message.started,
        skipped=message.skipped,
        refused=message.refused,
        document=document(message),
    )


def details(message: pb.GetScheduleResponse) -> ScheduleDetails:
    """A schedule with its times."""
    return ScheduleDetails(
        schedule(message.schedule),
        tuple(map(_time, message.next_times)),
        tuple(map(_scheduled_time, message.recent)),
        document(message),
    )


def backfilled(message: pb.BackfilledRun) -> BackfilledRun:
    """The run of a past time."""
    return BackfilledRun(_time(message.nominal_time), message.run_id, message.already_started, document(message))


def _scheduled_time(message: pb.ScheduledTime) -> ScheduledTime:
    return ScheduledTime(
        nominal_at=_time(message.nominal_time),
        recorded_at=_time(message.record_time),
        cause=_word(pb.ScheduledCause.Name, message.cause, "SCHEDULED_CAUSE_"),
        outcome=_word(pb.ScheduledOutcome.Name, message.outcome, "SCHEDULED_OUTCOME_"),
        times=message.times,
        reason=message.reason,
        message=message.message,
        run_id=message.run_id,
    )


def _timing(message: pb.Schedule) -> str:
    if message.WhichOneof("timing") == "cron":
        return f"{message.cron.expression} ({message.cron.time_zone})"
    return f"every {duration_words(message.interval.every_ms)}"


def _word(name: Callable[[Any], str], number: int, prefix: str) -> str:
    try:
        return name(number).removeprefix(prefix).lower()
    except ValueError:  # a value of a newer service
        return str(number)


def _time(moment: Timestamp) -> str:
    return moment.ToJsonString() if moment.seconds or moment.nanos else ""
