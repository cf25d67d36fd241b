"""Compares a process's clock with those of Postgres and of control, whose tokens it checks.

    watch = ClockWatch("runtime", process.clock, settings.clock)
    keys = await process.enter(JwksCache(settings.jwks, process.clock, watch=watch))  # control's time is in its answers
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    verifier = TokenVerifier(keys, process.clock, watch)

A comparison takes a round trip, so it is exact to half of that time; a smaller difference is not reported. Between two
comparisons, the difference follows the steps of this machine's own clock, as the monotonic clock shows them; after such
a step, control is asked again soon.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.config.shared import ClockSettings
from oa_platform.telemetry.metrics import CLOCK_AHEAD

CONTROL = "control"
POSTGRES = "postgres"
CLOCK_HEADER = "oa-clock-ms"
"""The header in which control sends its time with its keys, in milliseconds since 1970."""
RETRY_AFTER_MS = 2_000
"""How soon to call a service with a wrong clock again: setting a clock right takes a while."""
_DATABASE_MS = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The clock of the database."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Moment:
    """One moment by both of the process's clocks."""

    wall_ms: float
    monotonic_s: float


@dataclass(frozen=True)
class _Reading:
    """At `at`, half way through the comparison, our clock was ahead by `ahead_ms`, give or take `uncertain_ms`."""

    at: Moment
    ahead_ms: float
    uncertain_ms: float


class Database(Protocol):
    """A pool of connections, any of which can be asked for the time: `oa_platform.postgres.pool.Postgres`."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """One connection. Raises Refusal(unavailable) while there is none."""


class ClockWatch:
    """The known differences between the clocks. `service` names the process's own clock in messages."""

    def __init__(self, service: str, clock: Clock, settings: ClockSettings) -> None:
        self.service = service
        self.leeway_ms = settings.leeway_ms
        self._clock = clock
        self._max_skew_ms = settings.max_skew_ms
        self._database: Database | None = None
        self._readings: dict[str, _Reading] = {}
        self._beyond = False

    def compare_with_database(self, database: Database) -> None:
        """Let each check from now on ask the database for its time."""
        self._database = database

    def asking(self) -> Moment:
        """The moment before another service is asked for its time; for `told`."""
        return Moment(self._clock.time() * 1000, self._clock.monotonic())

    def told(self, other: str, asked: Moment, other_ms: int) -> None:
        """Record that `other`, which was asked at `asked`, answered `other_ms`."""
        half_ms = (self._clock.monotonic() - asked.monotonic_s) * 500
        at = Moment(asked.wall_ms + half_ms, asked.monotonic_s + half_ms / 1000)
        self._readings[other] = _Reading(at, at.wall_ms - other_ms, half_ms)
        CLOCK_AHEAD.labels(other).set(self.ahead_ms(other) / 1000)

    def ahead_ms(self, other: str) -> int:
        """How far our clock is ahead of `other`'s, as far as is known; 0 when they are equal or were never compared."""
        reading = self._readings.get(other)
        if reading is None:
            return 0
        ahead_ms = reading.ahead_ms + self._stepped_ms(reading)
        certain_ms = max(0.0, abs(ahead_ms) - reading.uncertain_ms)
        return round(certain_ms if ahead_ms > 0 else -certain_ms)

    def is_outdated(self, other: str) -> bool:
        """Whether our clock has stepped since `other` was asked, by more than a difference may be. Ask again then:
        the other clock may have stepped as well, or ours may have been behind after a pause of the whole machine."""
        reading = self._readings.get(other)
        return reading is not None and abs(self._stepped_ms(reading)) > self._max_skew_ms

    def _stepped_ms(self, reading: _Reading) -> float:
        """The steps of our wall clock since then, which the monotonic clock has not made."""
        now = self.asking()
        return (now.wall_ms - reading.at.wall_ms) - (now.monotonic_s - reading.at.monotonic_s) * 1000

    async def check(self) -> None:
        """Readiness: raises Refusal(clock_skew) while the clock differs by more than it may."""
        await self._ask_database()
        found = {other: self.ahead_ms(other) for other in self._readings}
        for other, ahead_ms in found.items():
            CLOCK_AHEAD.labels(other).set(ahead_ms / 1000)
        worst = max(found, key=lambda other: abs(found[other]), default="")
        beyond = bool(worst) and abs(found[worst]) > self._max_skew_ms
        if beyond != self._beyond:
            _log.warning("clock_skew" if beyond else "clock_skew_over", ahead_ms=found)
            self._beyond = beyond
        if beyond:
            raise skew(self.service, worst, found[worst], f"at most {self._max_skew_ms} (OA_CLOCK_SKEW_MAX_MS)")

    async def _ask_database(self) -> None:
        if self._database is None:
            return
        # A database that can't be asked is another check's concern; the known difference still holds.
        with contextlib.suppress(Refusal):
            async with self._database.acquire() as connection:
                asked = self.asking()
                self.told(POSTGRES, asked, await connection.fetchval(_DATABASE_MS))


def skew(service: str, other: str, ahead_ms: int, allowed: str) -> Refusal:
    """The refusal that names the clock, and by how much it is wrong. `allowed`: "at most 2000 (OA_…)"."""
    direction = "ahead of" if ahead_ms > 0 else "behind"
    message = (
        f"the clock of {service} is {abs(ahead_ms)} ms {direction} that of {other}; {allowed} is allowed; "
        "set the clocks right (NTP)"
    )
    metadata = {"clock": service, "compared_with": other, "ahead_ms": str(ahead_ms)}
    return Refusal("clock_skew", message, metadata=metadata, retry_after_ms=RETRY_AFTER_MS)
