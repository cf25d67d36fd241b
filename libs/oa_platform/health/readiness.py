"""Whether a process can do its work now: named checks, each of which passes or says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from oa_platform.health.failures import refusal_of
from oa_platform.telemetry import metrics

Check = Callable[[], Awaitable[None]]
"""Returns when all is well, raises when not."""
_log = structlog.get_logger(__name__)


class Readiness:
    """The checks of one process, and the phase it is in ("starting", "running", "draining")."""

    def __init__(self, check_timeout_s: float) -> None:
        self._timeout_s = check_timeout_s
        self._checks: dict[str, Check] = {}
        self._said: frozenset[str] | None = None
        self.phase = "starting"

    def add(self, name: str, check: Check) -> None:
        """Add a check."""
        if name in self._checks:
            raise ValueError(f"there is a check {name!r} already")
        self._checks[name] = check

    async def failures(self) -> dict[str, str]:
        """The checks that fail, by name, and why; empty when the process is ready."""
        if self.phase != "running":
            found = {"process": self.phase}
        else:
            names = list(self._checks)  # one may be added meanwhile
            answers = await asyncio.gather(*(self._failure(name) for name in names))
            found = {name: answer for name, answer in zip(names, answers, strict=True) if answer}
            self._say(found)
        metrics.READY.set(0 if found else 1)
        return found

    def _say(self, failures: dict[str, str]) -> None:
        """Log which checks fail, if these have changed: a probe of a pod shows the status and no reason."""
        failing = frozenset(failures)
        if failing == self._said:
            return
        self._said = failing
        if failing:
            _log.warning("not_ready", failures=failures)
        else:
            _log.info("ready")

    async def _failure(self, name: str) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._checks[name]()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - a check that breaks is a check that fails
            refusal = refusal_of(error)
            if refusal is None:
                _log.error("readiness_check_broke", check=name, exc_info=error)
            return str(refusal) if refusal else type(error).__name__
        return ""
