"""Follows runtime's workers. One replica at a time does this, and publishes on the topics what it stores.

The turn, and everything that is stored in it, use one connection to the database. A replica that has lost its
connection has lost its turn and can store nothing more, so newly stored data is never older than previously stored
data.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from services.projector.journal.app import Publication
from services.projector.journal.domain import JournalRow
from services.projector.workers import metrics
from services.projector.workers.domain import ToldWorker
from services.projector.workers.limits import WorkersLimits

_log = structlog.get_logger(__name__)


class WorkerSource(Protocol):
    """runtime's WorkerWatchService."""

    def watch(self, known: Sequence[str]) -> AsyncIterator[Sequence[ToldWorker]]:
        """All workers that have not ended and those of `known` that have, then every change. Raises Refusal."""
        ...


class Turn(Protocol):
    """The turn to follow workers."""

    async def known(self) -> list[str]:
        """The workers that have not ended, according to stored data."""
        ...

    async def store(self, told: Sequence[ToldWorker]) -> list[JournalRow]:
        """Store what is new and append it to the topics. Returns the added rows, sorted by topic and seq."""
        ...


Turns = Callable[[], AbstractAsyncContextManager[Turn | None]]
"""The turn for a block, or None when another replica has it. Raises Refusal when the database is away."""


class WorkersFollower:
    """See the module. `run` continues until canceled."""

    def __init__(
        self,
        source: WorkerSource,
        turns: Turns,
        publication: Publication,
        limits: WorkersLimits | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._turns = turns
        self._publication = publication
        self._limits = limits or WorkersLimits()
        self._backoff = Backoff(self._limits.backoff_min_ms, self._limits.backoff_max_ms)
        self._jitter = jitter
        self._failures = 0

    async def run(self) -> None:
        """Follow whenever it is this replica's turn."""
        while True:
            pause_ms = self._limits.turn_interval_ms
            try:
                async with self._turns() as turn:
                    if turn is not None:
                        metrics.FOLLOWING.set(1)
                        await self._follow(turn)
            except Exception as error:  # noqa: BLE001 - runs are shown without their workers
                pause_ms = self._backoff.wait_ms(self._failures, self._jitter())
                self._failures += 1
                note_survived(_log, "workers_not_followed", error, detail=str(error), retry_after_ms=pause_ms)
            finally:
                metrics.FOLLOWING.set(0)
            await asyncio.sleep(pause_ms / 1000)

    async def _follow(self, turn: Turn) -> None:
        async for told in self._source.watch(await turn.known()):
            past = self._publication.past
            rows = await turn.store(told)
            self._failures = 0
            metrics.ROWS.inc(len(rows))
            self._publication.publish(rows, past)
        raise Refusal("unavailable", "runtime ended the stream; follow it again")
