"""When a canary takes its next step, rolls back, or finishes."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum

from services.control.routes.limits import MAX_ERROR_EXCESS, MAX_SLOWDOWN, SLOW_FLOOR_MS

STEPS = (0, 5, 25, 50, 100)
"""Share of the shell in each step, in percent. The first one measures the legacy side alone."""
BOUNDS_MS = tuple(2 ** (third / 3) for third in range(51))
"""Upper bounds of the classes of time, a third of an octave each, from 1 ms to 104 s. One more class is unbounded."""
_P95 = 0.95
_SERVER_ERROR = 500


class Verdict(Enum):
    """The decision about a canary."""

    WAIT = "wait"
    STEP = "step"
    FINISH = "finish"
    ROLL_BACK = "roll_back"


class Outcome(StrEnum):
    """How a canary has ended."""

    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"
    REPLACED = "replaced"


class Why(StrEnum):
    """Why a canary was rolled back."""

    NONE = ""
    ERRORS = "errors"
    SLOW = "slow"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Canary:
    """A group on its way to the shell."""

    canary_id: int
    group: str
    step: int
    step_at: datetime
    hold_ms: int
    min_requests: int
    ended_at: datetime | None = None
    outcome: str = ""
    reason: str = ""

    @property
    def percent(self) -> int:
        """Share of the shell in the present step."""
        return STEPS[self.step]

    @property
    def next_percent(self) -> int:
        """Share of the shell in the step after this one."""
        return STEPS[self.step + 1]


@dataclass(slots=True)
class Measured:
    """Answers of one side. `times` counts them by class of time."""

    requests: int = 0
    errors: int = 0
    times: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def take(self, status: int, took_ms: float) -> None:
        """Count an answer."""
        self.requests += 1
        self.errors += status >= _SERVER_ERROR
        self.times[bisect.bisect_left(BOUNDS_MS, took_ms)] += 1

    def add(self, other: Measured) -> None:
        """Add the counts of another one."""
        self.requests += other.requests
        self.errors += other.errors
        self.times = [one + more for one, more in zip(self.times, other.times, strict=True)]

    @property
    def p95_ms(self) -> float:
        """Upper bound of the class that 95 % of the answers don't exceed."""
        return quantile_ms(self.times, _P95)


def quantile_ms(times: Sequence[int], share: float) -> float:
    """Upper bound of the class up to which this share of the answers lies; 0 when there are none."""
    left = share * sum(times)
    if not left:
        return 0.0
    for bound, count in zip(BOUNDS_MS, times, strict=False):
        left -= count
        if left <= 0:
            return bound
    return float("inf")


def newest(steps: Iterable[Measured], enough: int) -> Measured:
    """Return the sum of the newest steps that have `enough` answers together, or of all if they have fewer. `steps`
    are in order, the newest one first."""
    found = Measured()
    for measured in steps:
        if found.requests >= enough:
            break
        found.add(measured)
    return found


def judge(canary: Canary, now: datetime, legacy: Measured, shell: Measured) -> tuple[Verdict, Why]:
    """Decide about a canary: `legacy` as measured in its newest steps, `shell` in the present one.

    Errors roll it back as soon as the requests that the step still needs could not make up for them.
    """
    enough = canary.min_requests
    if canary.percent and legacy.requests:
        allowed = legacy.errors / legacy.requests + MAX_ERROR_EXCESS
        if shell.errors / max(shell.requests, enough) > allowed:
            return Verdict.ROLL_BACK, Why.ERRORS
    if legacy.requests < enough or (canary.percent and shell.requests < enough):
        return Verdict.WAIT, Why.NONE
    if canary.percent and shell.p95_ms > max(legacy.p95_ms * MAX_SLOWDOWN, SLOW_FLOOR_MS):
        return Verdict.ROLL_BACK, Why.SLOW
    if now - canary.step_at < timedelta(milliseconds=canary.hold_ms):
        return Verdict.WAIT, Why.NONE
    return (Verdict.STEP if canary.step + 1 < len(STEPS) else Verdict.FINISH), Why.NONE
