"""The log's epoch as this replica knows it, and whether the server still has what the replica has followed.

`confirm` is called for every new connection to the database, when a new epoch is announced, and from time to time. Log
state that another room keeps in memory belongs to an epoch: the room is told when that ends (`on_change`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from oa_platform.health.failures import note_survived
from oa_platform.system.ids import new_id
from oa_platform.tasks.word import Word
from oa_platform.telemetry.metrics import show_at_zero
from services.runtime.authority import metrics
from services.runtime.authority.domain import EpochCause, Found, Head, NewEpoch, judge

_log = structlog.get_logger(__name__)


class History(Protocol):
    """One server, asked for the log's past."""

    async def look(self, followed: Mapping[int, Head]) -> Found:
        """Return what the server has of the log; `followed` are the heads that must be part of it."""
        ...

    async def settle(self, found: Found, epoch: str, new: NewEpoch | None, given_by: str) -> None:
        """Note that the log was seen on the server, and give the log a new epoch unless somebody else just has."""
        ...


class Histories(Protocol):
    """The current server."""

    def history(self) -> AbstractAsyncContextManager[History]:
        """The server's history, asked over a connection of the pool. Raises Refusal unavailable."""
        ...


def new_epoch_name() -> str:
    """A name that no other log has."""
    return new_id("log")


class Lineage:
    """The log's lineage as one replica knows it. Call `open` first; `run` watches until canceled."""

    def __init__(self, histories: Histories, replica_id: str, interval_s: float) -> None:
        self._histories = histories
        self._replica_id = replica_id
        self._interval_s = interval_s
        self._known: tuple[str, ...] = ()
        self._followed: Callable[[], Mapping[int, Head]] = dict
        self._changed: list[Callable[[Mapping[int, Head]], None]] = []
        self._turn = asyncio.Lock()
        self._word = Word()
        show_at_zero(metrics.EPOCHS_GIVEN, (EpochCause.EVENTS_MISSING, EpochCause.HISTORY_UNKNOWN))

    @property
    def epoch(self) -> str:
        """The log's epoch."""
        return self._known[-1]

    def follow(self, followed: Callable[[], Mapping[int, Head]]) -> None:
        """Set where to get the heads that this replica has followed: the server must have them."""
        self._followed = followed

    def on_change(self, changed: Callable[[Mapping[int, Head]], None]) -> None:
        """Call `changed` with the log's heads when it gets another epoch: nothing that was known before holds then."""
        self._changed.append(changed)

    def wake(self) -> None:
        """Note that the epoch has changed: `run` looks at once."""
        self._word.give()

    async def open(self) -> None:
        """Learn the epoch. Raises Refusal unavailable."""
        async with self._histories.history() as history:
            await self.confirm(history)

    async def run(self) -> None:
        """Look when woken, and from time to time."""
        while True:
            await self._word.within(self._interval_s)
            try:
                await self.open()
            except Exception as error:  # noqa: BLE001 - the next look may succeed, and the next process would fail, too
                note_survived(_log, "lineage_not_confirmed", error)
                await asyncio.sleep(self._interval_s)
                self._word.give()

    async def confirm(self, history: History) -> None:
        """Compare what was followed with what the server has; give the log a new epoch if it needs one."""
        async with self._turn:
            found = await history.look(self._followed())
            new = judge(self._known, found)
            if new is not None or found.seen_on != found.server:
                epoch = new_epoch_name()
                await history.settle(found, epoch, new, self._replica_id)
                after = await history.look({})
                self._report(found, new, after)
                found = after
            if not self._known or found.epoch != self.epoch:
                self._enter(found)

    def _report(self, found: Found, new: NewEpoch | None, after: Found) -> None:
        if new is None:
            _log.info("server_history_noted", server=found.server, before=found.seen_on)
        else:
            metrics.EPOCHS_GIVEN.labels(new.cause).inc()
            _log.error("log_epoch_given", cause=new.cause, detail=new.detail, log_epoch=after.epoch, before=found.epoch)

    def _enter(self, found: Found) -> None:
        first = not self._known
        self._known = (*self._known, found.epoch)
        if first:
            return
        _log.warning("log_epoch_changed", log_epoch=found.epoch)
        for changed in self._changed:
            changed(found.heads)
