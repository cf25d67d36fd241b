"""Starts runs when the times of schedules come.

Any number of replicas do so. A replica locks the rows of some schedules that are due, creates their runs, moves the
schedules on to their next times, and commits. If it dies in between, the rows stay as they were: another replica takes
them, finds the existing runs by their keys, and continues from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.health.quarantine import Quarantine
from oa_runlog import wire
from oa_runlog.events import ThreadPolicy
from services.runtime.runs.app import Runs
from services.runtime.schedules import metrics
from services.runtime.schedules.app.ports import Change, Due, ScheduleStore
from services.runtime.schedules.app.spec_check import SpecCheck
from services.runtime.schedules.domain.schedule import (
    Outcome,
    Schedule,
    ScheduledTime,
    Settled,
    Standing,
    Status,
    Step,
    come,
    moved,
    plan,
    run_key,
    skipped_for_overlap,
    step_of,
    stopped,
    unusable,
)
from services.runtime.schedules.limits import ScheduleLimits

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Moved:
    """A schedule before and after its times were settled, and the records of them."""

    before: Schedule
    after: Schedule
    records: Sequence[ScheduledTime]


class ScheduleClock:
    """The clock of one replica."""

    def __init__(self, store: ScheduleStore, runs: Runs, specs: SpecCheck, limits: ScheduleLimits) -> None:
        self._store = store
        self._runs = runs
        self._specs = specs
        self._limits = limits
        self._waiting: set[str] = set()
        """Schedules whose runs can't be created at the moment. The next look tries again."""
        self._broken = Quarantine("schedules", "schedule_id", limits.quarantine)

    async def run(self) -> None:
        """Run until canceled."""
        while True:
            await self.look()
            await asyncio.sleep(self._limits.look_interval_ms / 1000)

    async def look(self) -> None:
        """Settle the times of schedules that are due, until none is due. A look that fails is repeated."""
        self._waiting.clear()
        try:
            while await self.look_after_page():
                pass
            metrics.LATE.set(await self._store.late_s())
            await self._store.forget_deleted(self._limits.keep_deleted_ms, self._limits.forget_page)
        except Exception as error:  # noqa: BLE001 - runs go on while schedules wait; the next process would fail, too
            metrics.LOOKS_FAILED.inc()
            note_survived(_log, "schedules_not_seen", error)

    async def look_after_page(self) -> bool:
        """Settle some schedules that are due; return whether there may be more. Raises Refusal unavailable."""
        taken = self._broken.taken
        async with self._store.due(self._limits.page, list(self._waiting), self._broken) as change:
            if change.schedules:
                late = change.now - change.schedules[0].next_time
                metrics.LATE.set(max(0.0, late.total_seconds()))
            done = await self._settled(change)
            for one in done:
                await change.store(one.after, one.records)
        for one in done:
            _tell(one, change)
        return (bool(change.schedules) or self._broken.taken > taken) and self._broken.has_room

    async def _settled(self, change: Change) -> list[_Moved]:
        due, done = list[Due](), list[_Moved]()
        for schedule in change.schedules:
            if not schedule.may_start:  # it was created while the news of that was on its way
                done.append(_Moved(schedule, stopped(schedule), ()))
                continue
            try:
                due.append(Due(schedule, come(schedule, change.now, self._limits.missed_page)))
            except Refusal as refusal:
                done.append(_Moved(schedule, unusable(schedule, refusal), ()))
            except Exception as error:  # noqa: BLE001 - one that breaks must not end the clock of all the others
                note_survived(_log, "schedule_broken", error, **_about(schedule))
                done.append(_Moved(schedule, unusable(schedule, _defect()), ()))
        standings = await change.standings(due) if due else []
        moving = {
            one.schedule.schedule_id: partial(self._move, one, standing, change.now)
            for one, standing in zip(due, standings, strict=True)
        }
        moves = await self._broken.attempt_each(moving)
        moves.check()
        return done + [one for one in moves.results.values() if one is not None]

    async def _move(self, one: Due, standing: Standing, now: datetime) -> _Moved | None:
        """Settle the times of one schedule. None: its run can't be created now, and is tried again."""
        schedule, settled = one.schedule, None
        planned = plan(schedule, one.come, now, standing)
        if planned.run_id:
            settled = Settled(Outcome.STARTED, run_id=planned.run_id)
        elif planned.due is not None:
            settled = await self._settle(schedule, planned.due, step_of(schedule.overlap, standing), now)
            if settled is None:
                return None
        return _Moved(schedule, *moved(schedule, planned, settled, self._limits.max_refusals))

    async def _settle(self, schedule: Schedule, due: datetime, step: Step, now: datetime) -> Settled | None:
        """Start the run of a due time, if it may have one. None: the run can't be created now."""
        try:
            return await self._start(schedule, due, step, now)
        except Refusal as refusal:
            if refusal.reason == "thread_busy":
                return skipped_for_overlap(refusal.message)
            if refusal.info.action is not ClientAction.RETRY:
                return Settled(Outcome.REFUSED, refusal.reason, refusal.message)
            self._waiting.add(schedule.schedule_id)
            _log.warning("schedule_waits", schedule_id=schedule.schedule_id, reason=refusal.reason)
            return None

    async def _start(self, schedule: Schedule, due: datetime, step: Step, now: datetime) -> Settled:
        spec = wire.decode_spec(schedule.spec)
        if step is Step.REPLACE and spec.thread_policy is ThreadPolicy.REJECT:
            step = Step.SKIP  # while the last run ends, its thread is busy: it would be canceled for nothing
        if step is Step.SKIP:
            return skipped_for_overlap()
        if step is Step.REPLACE:
            # A run that would be refused replaces nothing. The cancel comes before the run is created: if this process
            # dies in between, the next one finds no run of the time, and starts with both again.
            await self._specs.check(schedule.owner, schedule.spec, now)
            why = f"the schedule {schedule.name} starts its next run"
            await self._runs.cancel(schedule.owner, schedule.last_run_id, why)
        key = run_key(schedule.schedule_id, due)
        run, _ = await self._runs.create(schedule.owner, key, spec)
        return Settled(Outcome.STARTED, run_id=run.state.run_id)


def _defect() -> Refusal:
    return Refusal("internal", "this is a defect on our side; report it, and create the schedule anew in another way")


def _tell(one: _Moved, change: Change) -> None:
    """Count and log the outcomes of the times. This comes after the commit because the commit may fail."""
    about = _about(one.after)
    for record in one.records:
        metrics.TIMES.labels(record.outcome, record.reason).inc(record.times)
        nominal = record.nominal.isoformat()
        match record.outcome:
            case Outcome.STARTED:
                metrics.LATENESS.observe(max(0.0, (change.now - record.nominal).total_seconds()))
                _log.info("schedule_started", **about, nominal=nominal, run_id=record.run_id)
            case Outcome.SKIPPED:
                _log.warning("schedule_skipped", **about, nominal=nominal, times=record.times, reason=record.reason)
            case Outcome.REFUSED:
                _log.warning("schedule_refused", **about, nominal=nominal, reason=record.reason)
    tell_turned(one.before, one.after)


def tell_turned(before: Schedule, after: Schedule) -> None:
    """Count a schedule that has paused itself, and log why. Log a schedule that has resumed by itself."""
    if before.status is Status.ACTIVE and after.status is Status.PAUSED:
        metrics.PAUSED.inc()
        _log.warning("schedule_paused_itself", **_about(after), why=after.pause_reason)
    if before.status is Status.PAUSED and after.status is Status.ACTIVE:
        _log.info("schedule_went_on_by_itself", **_about(after), why="its org was restored")


def _about(schedule: Schedule) -> dict[str, str]:
    return {"schedule_id": schedule.schedule_id, "name": schedule.name, "org_id": schedule.org_id}
