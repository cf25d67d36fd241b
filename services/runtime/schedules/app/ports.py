"""What schedules need from their store. All times come from one clock, the store's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from oa_platform.health.quarantine import Quarantine
from services.runtime.schedules.domain.schedule import Come, Schedule, ScheduledTime, Standing, run_key


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule to store, with the key and the fingerprint of the request."""

    schedule: Schedule
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A schedule with the outcomes of its last times, the newest first, as of `now`."""

    schedule: Schedule
    recent: list[ScheduledTime]
    now: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule with times that have come."""

    schedule: Schedule
    come: Come

    @property
    def keys(self) -> tuple[str, str]:
        """The idempotency keys of the runs of its first and its last time."""
        first, last = self.come.times[0], self.come.times[-1]
        return run_key(self.schedule.schedule_id, first), run_key(self.schedule.schedule_id, last)


class Adding(Protocol):
    """A transaction that may add a schedule to an org."""

    now: datetime

    async def by_key(self, user_id: str, key: str) -> tuple[Schedule, bytes] | None:
        """The schedule that a key created, deleted or not, with the fingerprint of the request that created it."""
        ...

    async def count(self, name: str) -> tuple[int, bool]:
        """How many schedules the org has, and whether one of them has this name."""
        ...

    async def add(self, new: NewSchedule) -> None:
        """Store a new schedule."""
        ...


class Change(Protocol):
    """A transaction that has locked schedules."""

    now: datetime
    schedules: list[Schedule]

    async def standings(self, due: Sequence[Due]) -> list[Standing]:
        """For each of these, whether its last run has ended, and the first run that its times already have."""
        ...

    async def store(self, schedule: Schedule, records: Sequence[ScheduledTime] = ()) -> None:
        """Store the state of a schedule, and the outcomes of its times."""
        ...


class ScheduleStore(Protocol):
    """Schedules. Every method may raise Refusal unavailable."""

    async def find(self, org_id: str, handle: str) -> Schedule | None:
        """A schedule by its id, deleted or not, or by its name."""
        ...

    async def listed(self, org_id: str, below: str, limit: int) -> list[Schedule]:
        """Schedules of an org below an id ("" for all), the newest first."""
        ...

    async def shown(self, org_id: str, handle: str) -> Stored | None:
        """A schedule by its id or its name, with the outcomes of its last times, all as of one moment."""
        ...

    async def active_of(self, user_id: str, org_id: str = "") -> list[str]:
        """The ids of an owner's schedules that start runs, in all orgs or in one."""
        ...

    async def active_in(self, org_id: str) -> list[str]:
        """The ids of an org's schedules that start runs."""
        ...

    async def closed_in_open_orgs(self, limit: int, left_out: Sequence[str]) -> list[str]:
        """The ids of schedules that were paused because their orgs were deleted, and whose orgs are open again, without
        those that are left out."""
        ...

    async def now(self) -> datetime:
        """The current time."""
        ...

    async def late_s(self) -> float:
        """For how many seconds the schedule that has been due the longest has been due."""
        ...

    async def forget_deleted(self, keep_ms: int, limit: int) -> None:
        """Drop schedules that were deleted longer than `keep_ms` ago, at most `limit`."""
        ...

    def adding(self, org_id: str) -> AbstractAsyncContextManager[Adding]:
        """A transaction that may add a schedule to an org. Other transactions that would do so wait."""
        ...

    def changing(self, schedule_id: str) -> AbstractAsyncContextManager[Change]:
        """A transaction that has locked one schedule, unless the schedule is gone."""
        ...

    def due(self, limit: int, except_for: Sequence[str], broken: Quarantine) -> AbstractAsyncContextManager[Change]:
        """A transaction that has locked schedules whose time has come and that no other transaction has locked.

        `broken`: schedules that are left out too, and those whose rows can't be read.
        """
        ...
