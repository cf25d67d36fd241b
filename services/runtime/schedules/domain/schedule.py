"""Schedules, and what happens to them when their times come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_runlog.fingerprint import fingerprint
from services.runtime.schedules.domain.timing import CronTiming, Timing, next_after, times_after
from services.runtime.schedules.limits import ScheduleLimits


class Overlap(StrEnum):
    """What happens at a time if the last run has not ended."""

    SKIP = "skip"
    ALLOW = "allow"
    CANCEL_PREVIOUS = "cancel_previous"


class Status(StrEnum):
    """Whether a schedule starts runs."""

    ACTIVE = "active"
    PAUSED = "paused"
    DELETED = "deleted"


class Cause(StrEnum):
    """The cause of a run."""

    CLOCK = "clock"
    TRIGGER = "trigger"
    BACKFILL = "backfill"


class Outcome(StrEnum):
    """The outcome of a time."""

    STARTED = "started"
    SKIPPED = "skipped"
    REFUSED = "refused"


MISSED, OVERLAP = "missed", "overlap"
"""Why a time is skipped."""
_WHY_SKIPPED = {
    MISSED: "it was over when the schedule could be looked after; `oa schedule backfill` starts it all the same",
    OVERLAP: "the last run had not ended",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A schedule as requested. A `catch_up_ms` of 0 stands for the default; `spec` is an encoded RunSpec."""

    name: str
    timing: Timing
    overlap: Overlap
    catch_up_ms: int
    spec: bytes

    @property
    def fingerprint(self) -> bytes:
        """Distinguishes a repeated request from a different one under the same key."""
        timing = repr((type(self.timing).__name__, *(getattr(self.timing, name) for name in self.timing.__slots__)))
        return fingerprint(
            (self.name.encode(), timing.encode(), self.overlap.encode(), str(self.catch_up_ms).encode(), self.spec)
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule. `next_time` is the first time about which nothing has been decided."""

    schedule_id: str
    org_id: str
    user_id: str
    name: str
    timing: Timing
    overlap: Overlap
    catch_up_ms: int
    spec: bytes
    create_time: datetime
    next_time: datetime
    status: Status = Status.ACTIVE
    pause_reason: str = ""
    last_run_id: str = ""
    started: int = 0
    skipped: int = 0
    refused: int = 0
    refused_in_row: int = 0
    closed_with_org: bool = False
    """Whether it is paused because its org was deleted. It resumes when the org is restored."""
    owner_ended: bool = False
    """Whether its owner is an account that has ended for good."""
    owner_out: bool = False
    """Whether its owner has lost the place that its runs need: in the org, or everywhere."""
    org_closed: bool = False
    """Whether its org was deleted."""

    @property
    def may_start(self) -> bool:
        """Whether it may start runs: its owner has a place, and its org is open."""
        return not (self.owner_ended or self.owner_out or self.org_closed)

    @property
    def owner(self) -> Principal:
        """The principal that its runs belong to."""
        kind = PrincipalKind.SERVICE_ACCOUNT if self.user_id.startswith("sva_") else PrincipalKind.USER
        return Principal(kind, self.user_id, self.org_id)

    def with_run(self, run_id: str) -> Schedule:
        """The schedule after it started a run. A run that is older than the last one does not replace it."""
        return replace(self, last_run_id=max(self.last_run_id, run_id))  # the order of ids is the order of creation


@dataclass(frozen=True, slots=True)
class ScheduledTime:
    """The outcome of a time, or of several (`times`) that were skipped together; `nominal` is then the newest."""

    nominal: datetime
    cause: Cause
    outcome: Outcome
    times: int = 1
    reason: str = ""
    message: str = ""
    run_id: str = ""
    recorded: datetime | None = None
    """When it was recorded; None if it has not been."""


def check_draft(draft: Draft, limits: ScheduleLimits) -> None:
    """Raise Refusal `invalid_value`, `payload_too_large` for an impossible schedule. The timing is not checked."""
    if len(draft.name) > limits.max_name_chars:
        text = f"a name has at most {limits.max_name_chars} characters; give a shorter one"
        raise Refusal("invalid_value", text, field="name")
    if len(draft.spec) > limits.max_spec_bytes:
        text = f"the spec has more than {limits.max_spec_bytes} bytes; give the run a smaller input"
        raise Refusal("payload_too_large", text, field="spec")
    if 0 < draft.catch_up_ms < limits.min_catch_up_ms:
        text = f"a catch-up window must have at least {limits.min_catch_up_ms} ms, or 0 for the default"
        raise Refusal("invalid_value", text, field="catch_up_ms")


def run_key(schedule_id: str, nominal: datetime) -> str:
    """The idempotency key of the run of a schedule's time. However often the run is started, it is one run."""
    return f"{schedule_id}:{nominal.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def trigger_key(schedule_id: str, key: str) -> str:
    """The idempotency key of a run that is started on request."""
    return f"{schedule_id}:trigger:{key}"


@dataclass(frozen=True, slots=True)
class Come:
    """The times of a schedule that have come, or the first of them, and the time after these; None if there is none."""

    times: tuple[datetime, ...]
    following: datetime | None


def come(schedule: Schedule, now: datetime, max_times: int) -> Come:
    """The times that have come at `now`, which is not before the schedule's next time; at most `max_times`.

    Raises Refusal for a timing that can no longer be read.
    """
    times = [schedule.next_time]
    for time in times_after(schedule.timing, schedule.next_time):
        if time > now or len(times) == max_times:
            return Come(tuple(times), time)
        times.append(time)
    return Come(tuple(times), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """The stored state of a schedule's runs: whether the last one has ended, and the first one of a time that has come.

    A time that has come already has a run if the process that created it died before it moved the schedule on, or
    after a backfill.
    """

    last_ended: bool
    key: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the times of a schedule that have come.

    `missed` of them are skipped; `newest_missed` is the newest of these. `due` gets a run if it can have one: `run_id`
    if that exists. Then the schedule continues with `next_time`, which is None if there is no other time.
    """

    missed: int
    newest_missed: datetime | None
    due: datetime | None
    next_time: datetime | None
    run_id: str = ""


def plan(schedule: Schedule, come: Come, now: datetime, standing: Standing) -> Plan:
    """Decide what to do at `now`.

    A time whose run exists is settled first. Otherwise the newest time that has come gets a run, if it is no older than
    the catch-up window.
    """
    times, following = come.times, come.following
    keys = {run_key(schedule.schedule_id, time): index for index, time in enumerate(times)} if standing.key else {}
    if standing.key in keys:
        index = keys[standing.key]
        return _plan(times[:index], times[index], [*times[index + 1 :], following][0], standing.run_id)
    is_late = now - times[-1] > timedelta(milliseconds=schedule.catch_up_ms)
    if is_late or (following is not None and following <= now):
        return _plan(times, None, following)
    return _plan(times[:-1], times[-1], following)


def _plan(missed: Sequence[datetime], due: datetime | None, next_time: datetime | None, run_id: str = "") -> Plan:
    return Plan(len(missed), missed[-1] if missed else None, due, next_time, run_id)


class Step(StrEnum):
    """What to do about a due time."""

    START = "start"
    SKIP = "skip"
    REPLACE = "replace"


def step_of(overlap: Overlap, standing: Standing) -> Step:
    """What to do about a due time that has no run."""
    if standing.last_ended or overlap is Overlap.ALLOW:
        return Step.START
    return Step.REPLACE if overlap is Overlap.CANCEL_PREVIOUS else Step.SKIP


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a due time."""

    outcome: Outcome
    reason: str = ""
    message: str = ""
    run_id: str = ""


def skipped_for_overlap(why: str = "") -> Settled:
    """The outcome of a time at which the last run, or another one in its way, had not ended."""
    return Settled(Outcome.SKIPPED, OVERLAP, why or _WHY_SKIPPED[OVERLAP])


def moved(
    schedule: Schedule, plan: Plan, settled: Settled | None, max_refusals: int
) -> tuple[Schedule, list[ScheduledTime]]:
    """The schedule after its times were settled, and their records. `settled` is the outcome of the due time."""
    records = []
    if plan.newest_missed is not None:
        skipped = ScheduledTime(plan.newest_missed, Cause.CLOCK, Outcome.SKIPPED, plan.missed, MISSED)
        records.append(replace(skipped, message=_WHY_SKIPPED[MISSED]))
        schedule = replace(schedule, skipped=schedule.skipped + plan.missed)
    if plan.due is not None and settled is not None:
        fate = settled.outcome, 1, settled.reason, settled.message, settled.run_id
        records.append(ScheduledTime(plan.due, Cause.CLOCK, *fate))
        schedule = _counted(schedule, settled, max_refusals)
    if plan.next_time is None:
        return paused(schedule, "it has no other time"), records
    return replace(schedule, next_time=plan.next_time), records


def _counted(schedule: Schedule, settled: Settled, max_refusals: int) -> Schedule:
    match settled.outcome:
        case Outcome.STARTED:
            return replace(schedule.with_run(settled.run_id), started=schedule.started + 1, refused_in_row=0)
        case Outcome.SKIPPED:
            return replace(schedule, skipped=schedule.skipped + 1)
    in_row = schedule.refused_in_row + 1
    schedule = replace(schedule, refused=schedule.refused + 1, refused_in_row=in_row)
    if in_row < max_refusals:
        return schedule
    return paused(schedule, f"{in_row} runs in a row were refused, the last one as {settled.reason}: {settled.message}")


def paused(schedule: Schedule, reason: str) -> Schedule:
    """The schedule, paused. A schedule that somebody has already paused keeps its reason; one that paused with its org
    stays paused from now on, even when the org is open again."""
    if schedule.status is not Status.ACTIVE and not schedule.closed_with_org:
        return schedule
    return replace(schedule, status=Status.PAUSED, pause_reason=reason, closed_with_org=False)


def resumed(schedule: Schedule) -> Schedule:
    """The schedule, resumed where it was paused. The next look settles the times that it has missed."""
    if schedule.status is not Status.PAUSED:
        return schedule
    return replace(schedule, status=Status.ACTIVE, pause_reason="", refused_in_row=0, closed_with_org=False)


def shown_times(schedule: Schedule, now: datetime, max_times: int) -> list[datetime]:
    """The next times, none of them past. A paused schedule has none."""
    if schedule.status is not Status.ACTIVE:
        return []
    first = next_after(schedule.timing, now) if schedule.next_time <= now else schedule.next_time
    times = [] if first is None else [first]
    for time in times_after(schedule.timing, first) if first is not None else ():
        if len(times) == max_times:
            break
        times.append(time)
    return times


def stopped(schedule: Schedule) -> Schedule:
    """The schedule, paused if it may start no runs; otherwise unchanged."""
    if schedule.may_start or schedule.status is not Status.ACTIVE:
        return schedule
    if schedule.owner_ended:
        text = f"its owner {schedule.user_id} was revoked; delete it, or create it anew as somebody else"
        return paused(schedule, text)
    if schedule.owner_out:
        text = f"its owner {schedule.user_id} may start no runs here any more; create it anew as somebody else, or "
        return paused(schedule, f"{text}resume it when the owner may again")
    return replace(paused(schedule, "its org was deleted"), closed_with_org=True)


def reopened(schedule: Schedule) -> Schedule:
    """The schedule, resumed if it was paused with its org and the org is open again."""
    is_closed = schedule.closed_with_org and schedule.status is Status.PAUSED
    if not is_closed or schedule.org_closed:
        return schedule
    return stopped(replace(schedule, status=Status.ACTIVE, pause_reason="", closed_with_org=False))


def check_may_start(schedule: Schedule) -> None:
    """Raise Refusal `invalid_transition` for a schedule that may start no runs, no matter who asks for one."""
    if schedule.may_start:
        return
    text = f"the schedule's owner {schedule.user_id} may start no runs here, and they would be theirs; create it anew"
    if schedule.owner_ended:
        text = f"the schedule's owner {schedule.user_id} was revoked, and runs would be theirs; create it anew"
    elif schedule.org_closed:
        text = "the org was deleted, and nothing is started in it; restore it first"
    raise Refusal("invalid_transition", text, field="schedule")


def unusable(schedule: Schedule, refusal: Refusal) -> Schedule:
    """The schedule, paused because its timing can no longer be read, for example because a time zone was renamed."""
    zone = f" in {schedule.timing.time_zone}" if isinstance(schedule.timing, CronTiming) else ""
    return paused(schedule, f"its times{zone} can't be told: {refusal.message}")
