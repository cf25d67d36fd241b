"""Operations on schedules, for people. A schedule of another org is treated as one that does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_platform.health.quarantine import Quarantine
from oa_platform.system.ids import new_id
from oa_runlog import wire
from services.runtime.log.domain.records import RunRecord
from services.runtime.runs.app import Runs
from services.runtime.schedules.app.clock import tell_turned
from services.runtime.schedules.app.ports import Adding, Change, NewSchedule, ScheduleStore
from services.runtime.schedules.app.spec_check import SpecCheck
from services.runtime.schedules.domain.schedule import (
    Cause,
    Draft,
    Outcome,
    Schedule,
    ScheduledTime,
    Status,
    check_draft,
    check_may_start,
    paused,
    reopened,
    resumed,
    run_key,
    shown_times,
    stopped,
    trigger_key,
)
from services.runtime.schedules.domain.timing import anchored, check_timing, next_after, times_within
from services.runtime.schedules.limits import ScheduleLimits

DEFAULT_PAGE = 50
"""Number of schedules on a page if the caller states no size."""
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Shown:
    """A schedule, its next times, and the outcomes of its last times, the newest first."""

    schedule: Schedule
    next_times: list[datetime]
    recent: list[ScheduledTime]


class Backfilled(NamedTuple):
    """The run of a past time, and whether it existed before."""

    nominal: datetime
    run_id: str
    existed: bool


class Schedules:
    """Creates, shows and changes schedules, and starts their runs on request."""

    def __init__(self, store: ScheduleStore, runs: Runs, specs: SpecCheck, limits: ScheduleLimits) -> None:
        self._store = store
        self._runs = runs
        self._specs = specs
        self._limits = limits
        self._broken = Quarantine("places of schedules", "schedule_id", limits.quarantine)

    # -------------------------------------------------------------------------------------------------- create, show

    async def create(self, principal: Principal, key: str, draft: Draft) -> tuple[Schedule, bool]:
        """Create a schedule; return it, and whether it existed before. Raises Refusal.

        `idempotency_conflict`, `already_exists` for a name that is taken, `limit_reached`, `payload_too_large`,
        `invalid_value` for a timing that no schedule can have and for a spec that no run could have.
        """
        async with self._store.adding(principal.org_id) as adding:
            known = await adding.by_key(principal.subject, key)
        if known is None:
            check_draft(draft, self._limits)
            check_timing(draft.timing, self._limits, adding.now)
            await self._specs.check(principal, draft.spec, adding.now)
        async with self._store.adding(principal.org_id) as adding:
            known = await adding.by_key(principal.subject, key)
            if known is None:
                return await self._add(adding, principal, key, draft), False
        schedule, fingerprint = known
        if fingerprint != draft.fingerprint:
            text = "this key created another schedule; use a new key for a new request"
            raise Refusal("idempotency_conflict", text, field="idempotency_key")
        return schedule, True

    async def _add(self, adding: Adding, principal: Principal, key: str, draft: Draft) -> Schedule:
        count, taken = await adding.count(draft.name)
        if taken:
            text = "the org has a schedule of this name; give another name, or delete that one"
            raise Refusal("already_exists", text, field="name")
        if count >= self._limits.max_schedules:
            text = f"the org has {count} schedules, and may have no more; delete one"
            raise Refusal("limit_reached", text, metadata={"limit": str(self._limits.max_schedules)})
        timing = anchored(draft.timing, adding.now)
        next_time = next_after(timing, adding.now)
        if next_time is None:
            raise Refusal("invalid_value", "the timing has no time to come; give one that has", field="timing")
        schedule = Schedule(
            schedule_id=new_id("sch"),
            org_id=principal.org_id,
            user_id=principal.subject,
            name=draft.name,
            timing=timing,
            overlap=draft.overlap,
            catch_up_ms=draft.catch_up_ms or self._limits.catch_up_ms,
            spec=draft.spec,
            create_time=adding.now,
            next_time=next_time,
        )
        await adding.add(NewSchedule(schedule, key, draft.fingerprint))
        return schedule

    async def get(self, principal: Principal, handle: str) -> Shown:
        """A schedule by its id or its name. Raises Refusal not_found."""
        stored = await self._store.shown(principal.org_id, handle)
        if stored is None or stored.schedule.status is Status.DELETED:
            raise not_found()
        next_times = shown_times(stored.schedule, stored.now, self._limits.shown_times)
        return Shown(stored.schedule, next_times, stored.recent)

    async def page(self, principal: Principal, page_size: int, below: str) -> tuple[list[Schedule], str]:
        """Schedules of the org below an id, the newest first, and the id that the next page is below; "" for none."""
        size = page_size or DEFAULT_PAGE
        found = await self._store.listed(principal.org_id, below, size + 1)
        return found[:size], found[size - 1].schedule_id if len(found) > size else ""

    # ------------------------------------------------------------------------------------------------------- change

    async def pause(self, principal: Principal, handle: str, reason: str) -> Schedule:
        """Pause a schedule. Raises Refusal not_found."""
        return await self._change(principal, handle, lambda one: paused(one, reason or f"by {principal.subject}"))

    async def resume(self, principal: Principal, handle: str) -> Schedule:
        """Resume a schedule. Raises Refusal not_found, `invalid_transition` while it may start no runs."""

        def to(schedule: Schedule) -> Schedule:
            check_may_start(schedule)
            return resumed(schedule)

        return await self._change(principal, handle, to)

    async def end_owner(self, user_id: str) -> None:
        """Pause the schedules of an owner that has ended; each states why it is paused.

        Any replica may do this, any number of times. Raises Refusal unavailable.
        """
        await self._turn(await self._store.active_of(user_id), stopped)

    async def end_place(self, user_id: str, org_id: str) -> None:
        """Pause the schedules of a person or an account that has lost a place; without `user_id`, those of a whole org.

        Works like `end_owner`. A schedule that may start runs again by now stays as it is.
        """
        active = self._store.active_of(user_id, org_id) if user_id else self._store.active_in(org_id)
        await self._turn(await active, stopped)

    async def reopen(self) -> None:
        """Resume the schedules whose orgs were restored. Raises Refusal unavailable."""
        closed = await self._store.closed_in_open_orgs(self._limits.page, self._broken.ids)
        await self._turn(closed, reopened)

    async def _turn(self, schedule_ids: Sequence[str], to: Callable[[Schedule], Schedule]) -> None:
        """Apply the decision `to` to each of them, as it is under its lock."""
        for schedule_id in schedule_ids:
            await self._broken.attempt(schedule_id, partial(self._turn_one, schedule_id, to))

    async def _turn_one(self, schedule_id: str, to: Callable[[Schedule], Schedule]) -> None:
        async with self._store.changing(schedule_id) as change:
            turned = [(one, to(one)) for one in change.schedules]
            for before, after in turned:
                if after != before:
                    await change.store(after)
        for before, after in turned:
            tell_turned(before, after)

    async def delete(self, principal: Principal, handle: str) -> bool:
        """Delete a schedule; return whether it was deleted before. Raises Refusal not_found."""
        schedule = await self._find(principal, handle, deleted=True)
        if schedule.status is Status.DELETED:
            return True
        async with self._store.changing(schedule.schedule_id) as change:
            for one in change.schedules:
                await change.store(replace(one, status=Status.DELETED, pause_reason=""))
        return False

    async def _change(self, principal: Principal, handle: str, to: Callable[[Schedule], Schedule]) -> Schedule:
        async with self._locked(principal, handle) as (change, schedule):
            changed = to(schedule)
            if changed != schedule:
                await change.store(changed)
        return changed

    @asynccontextmanager
    async def _locked(self, principal: Principal, handle: str) -> AsyncIterator[tuple[Change, Schedule]]:
        found = await self._find(principal, handle)
        async with self._store.changing(found.schedule_id) as change:
            if not change.schedules or change.schedules[0].status is Status.DELETED:
                raise not_found()
            yield change, change.schedules[0]

    async def _find(self, principal: Principal, handle: str, *, deleted: bool = False) -> Schedule:
        schedule = await self._store.find(principal.org_id, handle)
        if schedule is None or (schedule.status is Status.DELETED and not deleted):
            raise not_found()
        return schedule

    # --------------------------------------------------------------------------------------------------------- start

    async def trigger(self, principal: Principal, handle: str, key: str) -> tuple[RunRecord, bool]:
        """Start a run now; return it, and whether this key had started it before.

        Raises Refusal not_found, `invalid_transition` while the schedule may start no runs, and as `Runs.create`.
        """
        schedule = await self._find(principal, handle)
        check_may_start(schedule)
        spec = wire.decode_spec(schedule.spec)
        run, existed = await self._runs.create(schedule.owner, trigger_key(schedule.schedule_id, key), spec)
        now = await self._store.now()
        said = f"by {principal.subject}"
        record = ScheduledTime(now, Cause.TRIGGER, Outcome.STARTED, message=said, run_id=run.state.run_id)
        await self._record(schedule, [record], last_run_id=run.state.run_id)
        return run, existed

    async def backfill(self, principal: Principal, handle: str, start: datetime, end: datetime) -> list[Backfilled]:
        """Start a run for each time at or after `start` and before `end`; return all in order, also those that existed.

        Raises Refusal not_found, `invalid_transition` while the schedule may start no runs, `invalid_value` for a range
        that is empty or not past, `limit_reached` for a range with too many times, and as `Runs.create`: then the runs
        before it were started, and another request continues.
        """
        schedule = await self._find(principal, handle)
        check_may_start(schedule)
        _check_range(start, end, await self._store.now())
        times = times_within(schedule.timing, start, end, self._limits.max_backfill + 1)
        if len(times) > self._limits.max_backfill:
            text = f"the range has more than {self._limits.max_backfill} times; ask for a shorter one"
            limit = {"limit": str(self._limits.max_backfill), "first_left_out": times[-1].isoformat()}
            raise Refusal("limit_reached", text, field="to_time", metadata=limit)
        done: list[Backfilled] = []
        for first in range(0, len(times), self._limits.page):
            some = times[first : first + self._limits.page]
            started = await asyncio.gather(*(self._backfill_one(schedule, one) for one in some), return_exceptions=True)
            new = [one for one in started if isinstance(one, Backfilled)]
            await self._record(schedule, [_backfill_record(principal, one) for one in new if not one.existed])
            for one in started:
                if isinstance(one, BaseException):
                    raise one
            done += new
        return done

    async def _backfill_one(self, schedule: Schedule, nominal: datetime) -> Backfilled:
        key = run_key(schedule.schedule_id, nominal)
        run, existed = await self._runs.create(schedule.owner, key, wire.decode_spec(schedule.spec))
        return Backfilled(nominal, run.state.run_id, existed)

    async def _record(self, schedule: Schedule, records: list[ScheduledTime], last_run_id: str = "") -> None:
        if not records:
            return
        async with self._store.changing(schedule.schedule_id) as change:
            for one in change.schedules:
                await change.store(one.with_run(last_run_id), records)


def not_found() -> Refusal:
    """The refusal for a schedule that does not exist, or that the caller may not know of."""
    return Refusal("not_found", "there is no such schedule that you may see; list them", field="schedule")


def _backfill_record(principal: Principal, one: Backfilled) -> ScheduledTime:
    said = f"by {principal.subject}"
    return ScheduledTime(one.nominal, Cause.BACKFILL, Outcome.STARTED, message=said, run_id=one.run_id)


def _check_range(start: datetime, end: datetime, now: datetime) -> None:
    if start < _EARLIEST:
        raise Refusal("invalid_value", "the range must not begin before 1970", field="from_time")
    if end <= start:
        raise Refusal("invalid_value", "the range ends before it begins; give a later end", field="to_time")
    if end > now:
        text = "the range ends in the future, and those times come by themselves; give an end that is past"
        raise Refusal("invalid_value", text, field="to_time")
