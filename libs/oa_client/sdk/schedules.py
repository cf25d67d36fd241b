"""One schedule, for the program that created it or knows its name."""

from __future__ import annotations

from datetime import datetime

from oa_client.core.schedules import Schedule, ScheduleDetails
from oa_client.edge.commands import Commands
from oa_client.follow.run_tail import Subscribes
from oa_client.sdk.runs import RunHandle
from oa_wire.given import check_moment, check_text


class ScheduleHandle:
    """A schedule at the service, by its name or its id. Every method may raise Refusal `not_found`."""

    def __init__(self, name: str, commands: Commands, following: Subscribes) -> None:
        self.name = name
        self._commands = commands
        self._schedules = commands.schedules
        self._following = following

    def __repr__(self) -> str:
        return f"ScheduleHandle({self.name})"

    async def state(self) -> ScheduleDetails:
        """Return the schedule, its next times, and the records of the last ones."""
        return await self._schedules.get(self.name)

    async def pause(self, reason: str = "") -> Schedule:
        """Start no more runs until the schedule is resumed."""
        check_text(reason, "reason")
        return await self._schedules.pause(self.name, reason)

    async def resume(self) -> Schedule:
        """Continue, with the newest missed time if it is within the catch-up window."""
        return await self._schedules.resume(self.name)

    async def trigger(self, *, key: str = "") -> RunHandle:
        """Start a run now, whatever the overlap policy. `key` makes it safe to call this again."""
        check_text(key, "key")
        return self._run((await self._schedules.trigger(self.name, key)).run_id)

    async def backfill(self, start: datetime, end: datetime) -> list[RunHandle]:
        """Start the missing runs of past times from `start` on and before `end`. Return the run of each time, in order.

        Moments without a time zone are UTC. Raises Refusal `limit_reached` for a range with too many times.
        """
        check_moment(start, "start")
        check_moment(end, "end")
        return [self._run(one.run_id) for one in await self._schedules.backfill(self.name, start, end)]

    async def delete(self) -> None:
        """End the schedule; its runs continue."""
        await self._schedules.delete(self.name)

    def _run(self, run_id: str) -> RunHandle:
        return RunHandle(run_id, self._commands, self._following)
