"""Recording what was revoked, and following it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import structlog

from oa_base.clock import Clock
from oa_base.identity import REVOCATION_KEPT_S
from oa_base.refusal import Refusal
from oa_base.ring import Ring
from oa_platform.health.failures import note_survived
from oa_platform.tasks.events import until_set
from oa_platform.tasks.word import Word
from services.control.revocations import metrics
from services.control.revocations.domain import Recorded, Revocation
from services.control.revocations.limits import RevocationLimits
from services.control.transactions.app import Transactions

_RETRY_AFTER_MS = 1_000
_log = structlog.get_logger(__name__)


class RevocationStore(Protocol):
    """Revocations in their order."""

    async def add(self, revocation: Revocation, now: datetime) -> None:
        """Record it, with the next position. Locks the order of all revocations until the transaction ends: do it after
        everything else that is to be locked."""
        ...

    async def head(self) -> int:
        """The newest position; 0 before the first."""
        ...

    async def after(self, position: int, limit: int) -> Sequence[Recorded]:
        """The first of those that come after a position, in their order."""
        ...

    async def sweep(self, revoked_before: datetime) -> None:
        """Remove those that are older, a limited number at a time."""
        ...


class Revoking(Protocol):
    """A transaction in which something may be revoked."""

    @property
    def revocations(self) -> RevocationStore: ...


class Page(NamedTuple):
    """Revocations that follow on each other, and where one who has taken them stands."""

    items: Sequence[Recorded]
    position: int
    caught_up: bool


class RevocationFeed:
    """What one replica hands on to all who follow. `start` first; `run` follows the database until canceled.

    All replicas write to one order, and each of them reads all of it: word of a commit comes by notification, and what
    counts is read from the table.
    """

    def __init__(self, transactions: Transactions[Revoking], clock: Clock, limits: RevocationLimits) -> None:
        self._transactions = transactions
        self._clock = clock
        self._limits = limits
        self._ring = self._ring_at(0)
        self._looked_s = clock.monotonic()
        self._word = Word()
        self._followers: set[asyncio.Event] = set()

    async def start(self) -> None:
        """Follow from the present head on. Raises Refusal `unavailable`."""
        async with self._transactions.autocommit() as tx:
            self._restart(await tx.revocations.head())

    @property
    def head(self) -> int:
        """The newest position that is known here."""
        return self._ring.head

    def word(self, position: int) -> None:
        """The database has come to this position. It may be late, come twice, or get lost."""
        if position > self._ring.head:
            self._word.give()

    def looked(self, known: int, position: int) -> None:
        """The database was asked where it stands, when `known` was the head here."""
        was_stale = self._stale
        self._looked_s = self._clock.monotonic()
        metrics.LOOKED.set(self._clock.time())
        if was_stale:
            self._tell()
        if position < known:
            _log.warning("revocations_went_back", position=position, known=known)  # to a backup
            self._restart(position)
        self.word(position)

    async def run(self) -> None:
        """Read what was revoked, until canceled."""
        while True:
            await self._word.heard()
            try:
                while await self._read_on():
                    pass
            except Exception as error:  # noqa: BLE001 - what is known grows old, and its readers see that
                note_survived(_log, "revocations_not_read", error)
                await asyncio.sleep(self._limits.retry_s)
                self._word.give()

    async def follow(self, after_position: int) -> AsyncGenerator[Page]:
        """Pages without end; an empty one is a sign of life. The reader paces it. Raises Refusal `overloaded`,
        `unavailable`.

        While the database can't be asked there is no sign of life, and nobody has caught up: what is known grows old.
        Who comes from beyond the head knows an order that is no more, and gets this one from its beginning.
        """
        if len(self._followers) >= self._limits.max_streams:
            message = f"this replica already has {self._limits.max_streams} streams of revocations; try another one"
            raise Refusal("overloaded", message, retry_after_ms=_RETRY_AFTER_MS)
        news = asyncio.Event()
        self._followers.add(news)
        metrics.WATCHERS.inc()
        try:
            position = after_position
            while True:
                news.clear()
                page = await self._page(position if position <= self._ring.head else 0)
                at_head = page.caught_up
                if self._stale:
                    page = page._replace(caught_up=False)
                if page.items or page.caught_up:
                    position = page.position
                    yield page
                if at_head:
                    await until_set(news, self._limits.alive_interval_s)
        finally:
            self._followers.discard(news)
            metrics.WATCHERS.dec()

    async def sweep(self) -> None:
        """Remove what ends no token any more."""
        async with self._transactions.autocommit() as tx:
            await tx.revocations.sweep(self._clock.now() - timedelta(seconds=REVOCATION_KEPT_S))

    @property
    def _stale(self) -> bool:
        """Whether what was revoked lately may be unknown here."""
        return self._clock.monotonic() - self._looked_s > self._limits.alive_interval_s

    async def _page(self, position: int) -> Page:
        head, limit = self._ring.head, self._limits.page_items
        items: Sequence[Recorded] | None = self._ring.slice(position + 1, limit, limit)
        if items is None:
            async with self._transactions.autocommit() as tx:
                items = [one for one in await tx.revocations.after(position, limit) if one.position <= head]
        reached = items[-1].position if items else head
        return Page(items, reached, caught_up=reached >= head)

    async def _read_on(self) -> bool:
        """Take the next of those that are new; False when there are none."""
        async with self._transactions.autocommit() as tx:
            new = await tx.revocations.after(self._ring.head, self._limits.page_items)
        if new:
            self._ring.take(new[0].position, new)
            self._tell()
        return bool(new)

    def _restart(self, head: int) -> None:
        self._ring = self._ring_at(head)
        self._tell()

    def _ring_at(self, head: int) -> Ring[Recorded]:
        return Ring(head, lambda _: 1, self._limits.ring_items, self._limits.ring_items)

    def _tell(self) -> None:
        metrics.POSITION.set(self._ring.head)
        for news in self._followers:
            news.set()
