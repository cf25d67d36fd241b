"""Keeps one thing that can't be handled, such as a run with a damaged row, from holding up all others.

A background task handles many things in a look. When the handling of one of them fails because of a defect, the task
leaves that one out for a while, and goes on with the others:

    broken = Quarantine("watchdog", "run_id")
    overdue = await store.overdue_runs(page, broken)        # without `broken.ids`
    (await broken.attempt_each({run_id: partial(end, run_id) for run_id in overdue})).check()

A failure that concerns all of them, such as a database that is away, is raised: then the whole look has failed.

A task that looks again at once as long as it finds something does so only while the quarantine `has_room`. Otherwise
what is left out makes room for what breaks next, comes back at once, and the task never pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
import structlog

from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.failures import DATABASE_DAMAGED, reason_of, refusal_of
from oa_platform.telemetry.metrics import QUARANTINED, show_at_zero

_log = structlog.get_logger(__name__)
_OF_ALL = frozenset({"unavailable", "overloaded", "draining", "deadline_exceeded"})
"""Reasons of failures that have nothing to do with the one thing that was being handled."""
T = TypeVar("T")


class _Row(Protocol):
    """A row of the database."""

    def __getitem__(self, column: str, /) -> Any: ...


R = TypeVar("R", bound=_Row)


_DEFAULTS = QuarantineSettings()


@dataclass(frozen=True, slots=True)
class Tried(Generic[T]):
    """What became of many things: the results of those that were handled, and a failure that concerns all."""

    results: Mapping[str, T]
    failure: Exception | None

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure


class Quarantine:
    """The things that one background task of this process leaves out for now, by their ids."""

    def __init__(
        self,
        task: str,
        kind: str,
        limits: QuarantineSettings = _DEFAULTS,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`task`: its name in logs and metrics. `kind`: the name of the ids in logs, and of their column in rows."""
        self._task = task
        self._kind = kind
        self._limits = limits
        self._now_s = now_s
        self._until_s: dict[str, float] = {}
        """Thing -> when it may be tried again; the earliest first."""
        self.taken = 0
        """How many times something was left out because of an error."""
        show_at_zero(QUARANTINED, (task,))

    @property
    def ids(self) -> list[str]:
        """The things that are left out now."""
        now_s = self._now_s()
        self._until_s = {one: until_s for one, until_s in self._until_s.items() if until_s > now_s}
        return list(self._until_s)

    @property
    def has_room(self) -> bool:
        """Whether one more can be left out while all the others stay so."""
        return len(self.ids) < self._limits.max_things

    def hold(self, one: str) -> None:
        """Leave a thing out from now on, for a while."""
        self._until_s.pop(one, None)
        while len(self._until_s) >= self._limits.max_things:
            del self._until_s[next(iter(self._until_s))]
        self._until_s[one] = self._now_s() + self._limits.retry_s

    def take(self, one: str, error: Exception) -> None:
        """Leave a thing out because of an error, which is logged and counted."""
        self.hold(one)
        self.taken += 1
        QUARANTINED.labels(self._task).inc()
        about = {"task": self._task, self._kind: one, "reason": reason_of(error)}
        _log.error("quarantined", **about, exc_info=error)  # a refusal, too, is a defect here

    @contextmanager
    def containing(self, one: str) -> Iterator[None]:
        """A block that handles one thing. If it fails for a reason of its own, it ends there, and is left out.

        Raises what concerns other things too.
        """
        try:
            yield
        except Exception as error:
            if concerns_all(error):
                raise
            self.take(one, error)

    async def attempt(self, one: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do the work on one thing and return its result; None if it failed as in `containing`."""
        result: T | None = None
        with self.containing(one):
            result = await work()
        return result  # noqa: RET504 - `containing` may have ended its block before

    async def attempt_each(self, works: Mapping[str, Callable[[], Awaitable[T]]]) -> Tried[T]:
        """Do the work on each of them, at the same time, and return what became of them once all have been tried.

        A failure that concerns all keeps none of them from being tried: one org alone may be `overloaded`, for example.
        """
        results: dict[str, T] = {}

        async def attempt(one: str, work: Callable[[], Awaitable[T]]) -> None:
            with self.containing(one):
                results[one] = await work()

        failures = await asyncio.gather(*(attempt(*item) for item in works.items()), return_exceptions=True)
        failure = next((one for one in failures if one is not None), None)
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        return Tried(results, failure)

    async def together(self, ids: Sequence[str], work: Callable[[Sequence[str]], Awaitable[int]]) -> int:
        """Do work on many things at once, which does it on all of them or on none, and return how many it handled.

        When it fails because of a defect, it is done on halves, until what fails alone is left out. If nothing at all
        can be handled, the defect is raised, because it is not one of a single thing. Raises what concerns all of them.
        """
        failures: list[tuple[str, Exception]] = []
        done = await self._halving(ids, work, failures)
        if failures and not done:
            raise failures[0][1]
        for one, error in failures:
            self.take(one, error)
        return done

    async def _halving(
        self,
        ids: Sequence[str],
        work: Callable[[Sequence[str]], Awaitable[int]],
        failures: list[tuple[str, Exception]],
    ) -> int:
        try:
            return await work(ids)
        except Exception as error:
            if concerns_all(error):
                raise
            middle = len(ids) // 2
            if not middle:
                failures += [(one, error) for one in ids]
                return 0
            return sum([await self._halving(half, work, failures) for half in (ids[:middle], ids[middle:])])

    def decoded(self, rows: Iterable[R], decode: Callable[[R], T]) -> list[T]:
        """The things in some rows, without those whose rows can't be decoded."""
        found: list[T] = []
        for row in rows:
            with self.containing(row[self._kind]):
                found.append(decode(row))
        return found


def concerns_all(error: Exception) -> bool:
    """Whether an error has nothing to do with the one thing that was being handled when it occurred."""
    if isinstance(error, asyncpg.exceptions.SyntaxOrAccessError):  # a lost right, table, column or index
        return True
    if isinstance(error, DATABASE_DAMAGED) or isinstance(error.__cause__, DATABASE_DAMAGED):
        return False
    refusal = refusal_of(error)
    return refusal is not None and refusal.reason in _OF_ALL
