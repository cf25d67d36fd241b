"""Schedules: runs that start by the clock."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message

from oa_client.core import schedules as wire
from oa_client.core.models import Run
from oa_client.core.schedules import BackfilledRun, Cron, Every, Schedule, ScheduleDetails, SchedulePage
from oa_client.core.wire import run
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge, M
from oa_client.edge.new_ids import new_idempotency_key
from oa_runlog.events import RunSpec
from openagents.runtime.v1 import schedule_service_pb2 as pb

_SCHEDULES = "openagents.runtime.v1.ScheduleService"


class Schedules:
    """The schedules of the caller's org, by id or name. Every method may raise Refusal, `not_found` among them."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def _call(self, method: str, request: Message, response: type[M]) -> M:
        return await self._edge.call(f"{_SCHEDULES}/{method}", request, response, self._tokens, attempts=ATTEMPTS)

    async def create(
        self,
        name: str,
        timing: Cron | Every,
        spec: RunSpec,
        *,
        overlap: str = "skip",
        catch_up_ms: int = 0,
        idempotency_key: str = "",
    ) -> Schedule:
        """Create a schedule. The key makes a repeated call safe; without one a new key is made.

        `overlap`: skip, allow or cancel_previous. `catch_up_ms`: how late a run may start; 0 for the installation's
        default. Raises Refusal with the field to blame; `already_exists` for a name that is taken, `limit_reached`.
        """
        key = idempotency_key or new_idempotency_key()
        request = wire.create_request(name, timing, spec, overlap, catch_up_ms, key)
        return wire.schedule((await self._call("CreateSchedule", request, pb.CreateScheduleResponse)).schedule)

    async def get(self, schedule: str) -> ScheduleDetails:
        """Return a schedule, the records of its last times, and its next ones."""
        request = pb.GetScheduleRequest(schedule=schedule)
        return wire.details(await self._call("GetSchedule", request, pb.GetScheduleResponse))

    async def page(self, *, page_size: int = 0, page_token: str = "") -> SchedulePage:
        """Return the schedules of the org, newest first."""
        request = pb.ListSchedulesRequest(page_size=page_size, page_token=page_token)
        answer = await self._call("ListSchedules", request, pb.ListSchedulesResponse)
        return SchedulePage(tuple(map(wire.schedule, answer.schedules)), answer.next_page_token)

    async def pause(self, schedule: str, reason: str = "") -> Schedule:
        """Start no more runs until the schedule is resumed."""
        request = pb.PauseScheduleRequest(schedule=schedule, reason=reason)
        return wire.schedule((await self._call("PauseSchedule", request, pb.PauseScheduleResponse)).schedule)

    async def resume(self, schedule: str) -> Schedule:
        """Continue, with the newest missed time if it is within the catch-up window."""
        request = pb.ResumeScheduleRequest(schedule=schedule)
        return wire.schedule((await self._call("ResumeSchedule", request, pb.ResumeScheduleResponse)).schedule)

    async def trigger(self, schedule: str, idempotency_key: str = "") -> Run:
        """Start a run now. The key makes a repeated call safe; without one a new key is made."""
        key = idempotency_key or new_idempotency_key()
        request = pb.TriggerScheduleRequest(schedule=schedule, idempotency_key=key)
        return run((await self._call("TriggerSchedule", request, pb.TriggerScheduleResponse)).run)

    async def backfill(self, schedule: str, start: datetime, end: datetime) -> list[BackfilledRun]:
        """Start the missing runs of past times from `start` on and before `end`. Return the run of each time, in order.

        Moments without a time zone are UTC. Raises Refusal `limit_reached` for a range with too many times.
        """
        request = pb.BackfillScheduleRequest(
            schedule=schedule, from_time=wire.timestamp(start), to_time=wire.timestamp(end)
        )
        answer = await self._call("BackfillSchedule", request, pb.BackfillScheduleResponse)
        return [wire.backfilled(one) for one in answer.runs]

    async def delete(self, schedule: str) -> None:
        """End a schedule; its runs continue."""
        await self._call("DeleteSchedule", pb.DeleteScheduleRequest(schedule=schedule), pb.DeleteScheduleResponse)
