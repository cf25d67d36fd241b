"""Reports how far each retention class is behind, and which classes of finished runs no longer exist.

Runs of a class that is not configured stay in the log, because nobody said that they may leave it. This has to be
visible, because they make the log grow forever. So every replica looks, even where nothing is archived.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from oa_platform.health.failures import surviving
from services.runtime.retention import metrics
from services.runtime.retention.domain import RetentionClasses

_log = structlog.get_logger(__name__)


class OldestRuns(Protocol):
    """Finished runs whose events are in the log."""

    async def oldest(self) -> dict[str, float]:
        """Retention class -> seconds since the end of its earliest finished run; classes without one are left out."""
        ...


class RetentionWatch:
    """The watch of one replica."""

    def __init__(self, runs: OldestRuns, classes: RetentionClasses, poll_ms: int) -> None:
        self._runs = runs
        self._classes = classes
        self._poll_ms = poll_ms
        self._unknown: set[str] = set()

    async def run(self) -> None:
        """Look from time to time until canceled."""
        while True:
            with surviving(_log, "retention_not_seen"):
                await self.look()
            await asyncio.sleep(self._poll_ms / 1000)

    async def look(self) -> None:
        """Look once. Raises Refusal unavailable."""
        oldest_s = await self._runs.oldest()
        for name, age_s in self._classes.ages.items():
            metrics.ARCHIVE_LAG_SECONDS.labels(name).set(max(0.0, oldest_s.get(name, 0.0) - age_s))
        self._say_unknown({name: age_s for name, age_s in oldest_s.items() if name not in self._classes.names})

    def _say_unknown(self, ages_s: dict[str, float]) -> None:
        for name in self._unknown - set(ages_s):
            metrics.RETENTION_UNKNOWN_SECONDS.remove(name)
        for name, age_s in ages_s.items():
            metrics.RETENTION_UNKNOWN_SECONDS.labels(name).set(age_s)
            if name not in self._unknown:
                _log.warning("retention_class_unknown", retention_class=name, oldest_s=round(age_s))
        self._unknown = set(ages_s)
