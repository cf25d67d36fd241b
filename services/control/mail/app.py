"""Delivers mail: any replica hands mail that waits in the database to the relay, until it is accepted or expired."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from oa_base.clock import Clock
from oa_platform.health.failures import note_survived
from oa_platform.tasks.word import Word
from oa_platform.telemetry.metrics import show_at_zero
from services.control.mail.domain.letters import Kind, Letter, Mail, Outcome, next_try
from services.control.mail.limits import CLAIM_MARGIN, LOOK_INTERVAL_S, MAX_DELIVERIES
from services.control.mail.metrics import LOOKS_FAILED, MAILS, OLDEST
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)


class Carrier(Protocol):
    """Hands mail over for delivery."""

    @property
    def timeout(self) -> timedelta:
        """Maximum time for one delivery."""
        ...

    async def carry(self, letter: Letter) -> Outcome:
        """Hand a letter over. Return SENT, LATER or REFUSED."""
        ...


class MailStore(Protocol):
    """Mail that waits."""

    async def add(self, mail: Mail, now: datetime) -> None:
        """Queue a mail, due at once."""
        ...

    async def drop(self, about: str) -> None:
        """Remove waiting mail that is about this, because it is no longer of use."""
        ...

    async def claim(self, now: datetime, until: datetime, limit: int) -> Sequence[Mail]:
        """Claim due mail, oldest first, and keep it from other replicas `until` then. Each gets one more attempt."""
        ...

    async def remove(self, mail_id: str) -> None:
        """Remove a mail from those that wait."""
        ...

    async def postpone(self, mail_id: str, due_at: datetime) -> None:
        """Try a mail again at `due_at`."""
        ...

    async def remove_expired(self, now: datetime) -> int:
        """Remove expired mail, a limited number at a time. Return the number removed."""
        ...

    async def oldest(self) -> datetime | None:
        """The time since which the oldest mail has waited."""
        ...


class Transaction(Protocol):
    """A transaction with mail."""

    @property
    def mail(self) -> MailStore: ...


class Delivery:
    """Delivers mail. `writers` make letters from mails, by kind.

    A mail is sent at least once: if a replica dies after the relay has accepted a mail and before that is stored,
    another replica sends it again, under the same Message-ID.
    """

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        carrier: Carrier,
        writers: Mapping[Kind, Callable[[Mail], Letter]],
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._carrier = carrier
        self._writers = writers
        self._queued = Word()
        show_at_zero(MAILS, Outcome)

    def wake(self) -> None:
        """Look for mail at once, because something was queued here."""
        self._queued.give()

    async def run(self) -> None:
        """Deliver until canceled. A look that fails is repeated."""
        while True:
            try:
                busy = await self.deliver_due() == MAX_DELIVERIES
            except Exception as error:  # noqa: BLE001 - a look that breaks must not end all looks
                LOOKS_FAILED.inc()
                note_survived(_log, "mail_not_seen", error)
                busy = False
            if not busy:
                await self._queued.within(LOOK_INTERVAL_S)

    async def deliver_due(self) -> int:
        """Try due mail, at most as much as may be in delivery at a time. Return the number of mails."""
        now = self._clock.now()
        async with self._transactions.autocommit() as tx:
            expired = await tx.mail.remove_expired(now)
            oldest = await tx.mail.oldest()
            mails = await tx.mail.claim(now, now + self._carrier.timeout + CLAIM_MARGIN, MAX_DELIVERIES)
        if expired:
            MAILS.labels(Outcome.EXPIRED).inc(expired)
            _log.error("mail_expired", count=expired)
        OLDEST.set(max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)
        await asyncio.gather(*map(self._deliver, mails))
        return len(mails)

    async def _deliver(self, mail: Mail) -> None:
        outcome = await self._carrier.carry(self._writers[mail.kind](mail))
        MAILS.labels(outcome).inc()
        async with self._transactions.autocommit() as tx:
            if outcome is Outcome.LATER:
                await tx.mail.postpone(mail.mail_id, next_try(mail, self._clock.now(), random.random()))
            else:
                await tx.mail.remove(mail.mail_id)
        if outcome is not Outcome.SENT:
            _log.warning("mail_not_sent", mail_id=mail.mail_id, outcome=outcome, attempts=mail.attempts)
