"""The decisions of operators, as this replica knows them."""

from __future__ import annotations

import asyncio

import structlog

from oa_base.clock import Clock
from oa_platform.health.failures import note_survived
from oa_platform.tasks.word import Word
from services.control.routes import metrics
from services.control.routes.app.tables import Decided, Routed
from services.control.transactions.app import Transactions

_RETRY_S = 0.5
_log = structlog.get_logger(__name__)


class RouteBook:
    """Follows the database: `start` first, then `run` until canceled.

    Changes are noticed by notification and by polling; the decisions themselves are always read from the tables, all
    of them. While the database can't be reached, the last known decisions hold.
    """

    def __init__(self, transactions: Transactions[Routed], clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._word = Word()
        self._decided: Decided | None = None

    async def start(self) -> None:
        """Read the present decisions. Raises Refusal `unavailable`."""
        await self._read()

    @property
    def decided(self) -> Decided:
        """All decisions that are known."""
        if self._decided is None:
            raise RuntimeError("the book was not started")
        return self._decided

    def word(self) -> None:
        """Take note that something may have changed."""
        self._word.give()

    def looked(self, change: int) -> None:
        """Take the number of changes that was read from the database."""
        metrics.LOOKED.set(self._clock.time())
        if change != self.decided.change:
            self._word.give()

    async def run(self) -> None:
        """Read the decisions after each change, until canceled."""
        while True:
            await self._word.heard()
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - the decisions that are known still hold
                note_survived(_log, "routes_not_read", error)
                await asyncio.sleep(_RETRY_S)
                self._word.give()

    async def _read(self) -> None:
        async with self._transactions.autocommit() as tx:
            self._decided = await tx.routes.decided()
        metrics.VERSION.set(self._decided.version)
        metrics.MAINTENANCE.set(self._decided.maintenance is not None)
        metrics.CANARIES.set(len(self._decided.canaries))
        metrics.LOOKED.set(self._clock.time())
