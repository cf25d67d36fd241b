"""The replicas' measurements of a canary, and the steps that it takes.

No single replica runs a canary. Each replica reports its measurements and then judges them. It makes a step in a
transaction under the lock that every change takes: the first replica makes the step, and the next one finds the canary
on it. So a canary continues whichever replica dies.
"""

from __future__ import annotations

import asyncio

import structlog

from oa_base.clock import Clock
from oa_platform.health.failures import surviving
from oa_platform.telemetry.metrics import show_at_zero
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.routes import metrics
from services.control.routes.app.book import RouteBook
from services.control.routes.app.tables import Routed
from services.control.routes.domain.canary import Canary, Measured, Outcome, Verdict, Why, judge, newest
from services.control.routes.domain.groups import Side
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)
_Key = tuple[int, int, Side]
_ACTOR = "canary"


class Canaries:
    """One replica's part in all canaries."""

    def __init__(self, transactions: Transactions[Routed], clock: Clock, book: RouteBook, interval_s: float) -> None:
        self._transactions = transactions
        self._clock = clock
        self._book = book
        self._interval_s = interval_s
        self._measured: dict[_Key, Measured] = {}
        show_at_zero(metrics.CANARY_ENDS, Outcome)

    def take(self, group: str, side: Side, status: int, took_ms: float) -> None:
        """Count an answer to a divided request, for the step that this replica knows of."""
        for canary in self._book.decided.canaries:
            if canary.group == group:
                key = canary.canary_id, canary.step, side
                self._measured.setdefault(key, Measured()).take(status, took_ms)

    async def run(self) -> None:
        """Report and judge, until canceled."""
        while True:
            await asyncio.sleep(self._interval_s)
            with surviving(_log, "canaries_wait"):
                await self.turn()

    async def turn(self) -> None:
        """Report, and judge each known canary. Raises Refusal `unavailable`; the measurements are then kept."""
        await self._report()
        for canary in self._book.decided.canaries:
            await self._judge(canary.canary_id)

    async def _report(self) -> None:
        reported, self._measured = self._measured, {}
        if not reported:
            return
        try:
            async with self._transactions.begin() as tx:
                for (canary_id, step, side), measured in sorted(reported.items()):
                    await tx.routes.add_measured(canary_id, step, side, measured)
        except Exception:
            for key, measured in reported.items():
                self._measured.setdefault(key, Measured()).add(measured)
            raise

    async def _judge(self, canary_id: int) -> None:
        async with self._transactions.autocommit() as tx:
            known = await _running(tx, canary_id)
            if known is None or await self._verdict(tx, known) == (Verdict.WAIT, Why.NONE):
                return
        async with self._transactions.begin() as tx:
            await tx.routes.lock()
            canary = await _running(tx, canary_id)
            if canary is None:
                return
            verdict, why = await self._verdict(tx, canary)
            if verdict is Verdict.STEP:
                await self._step(tx, canary)
            elif verdict is not Verdict.WAIT:
                await self._end(tx, canary, verdict, why)
        self._book.word()
        _log.info("canary_judged", group=canary.group, step=canary.step, verdict=verdict.value, why=why.value)

    async def _verdict(self, tx: Routed, canary: Canary) -> tuple[Verdict, Why]:
        steps, shell = await tx.routes.measured(canary)
        # An outage of the legacy side that is over must not excuse the shell.
        legacy = newest(steps, canary.min_requests)
        return judge(canary, self._clock.now(), legacy, shell)

    async def _step(self, tx: Routed, canary: Canary) -> None:
        now = self._clock.now()
        await tx.routes.step_canary(canary.canary_id, canary.step + 1, now)
        await self._at_percent(tx, canary.group, canary.next_percent)

    async def _end(self, tx: Routed, canary: Canary, verdict: Verdict, why: Why) -> None:
        back = verdict is Verdict.ROLL_BACK
        outcome = Outcome.ROLLED_BACK if back else Outcome.FINISHED
        if back:
            await self._at_percent(tx, canary.group, 0)
        await tx.routes.end_canaries(canary.group, outcome, why, self._clock.now())
        action = Action.CANARY_ROLLED_BACK if back else Action.CANARY_FINISHED
        entry = AuditEntry(action, Origin(), _ACTOR, target=canary.group, reason=why.value)
        await tx.audit.add(entry, self._clock.now())
        metrics.CANARY_ENDS.labels(outcome.value).inc()

    async def _at_percent(self, tx: Routed, group: str, percent: int) -> None:
        """Add a version made by the canary. A rollback by an operator goes back to before the whole canary."""
        decided = await tx.routes.decided()
        await tx.routes.add_version(decided.groups.at_percent(group, percent), decided.base, self._clock.now())


async def _running(tx: Routed, canary_id: int) -> Canary | None:
    return next((one for one in (await tx.routes.decided()).canaries if one.canary_id == canary_id), None)
