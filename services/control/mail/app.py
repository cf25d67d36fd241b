"""Mail leaves: whatever waits in the database is handed to the relay, by any replica, until it is taken or too old."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.process.word import Word
from services.control.mail.domain.letters import Kind, Letter, Mail, Outcome, next_try
from services.control.mail.limits import CLAIM_MARGIN, LOOK_INTERVAL_S, MAX_DELIVERIES
from services.control.mail.metrics import LOOKS_FAILED, MAILS, OLDEST
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)


class Carrier(Protocol):
    """Hands mail over for delivery."""

    @property
    def timeout(self) -> timedelta:
        """How long one delivery may take."""
        ...

    async def carry(self, letter: Letter) -> Outcome:
        """Hand it over: SENT, LATER or REFUSED."""
        ...


class MailStore(Protocol):
    """Mail that waits."""

    async def add(self, mail: Mail, now: datetime) -> None:
        """Let it wait, due at once."""
        ...

    async def drop(self, about: str) -> None:
        """Remove what waits and is about this: it is of no use any more."""
        ...

    async def claim(self, now: datetime, until: datetime, limit: int) -> Sequence[Mail]:
        """What is due, the oldest first, kept from other replicas `until` then. Each has one attempt more."""
        ...

    async def remove(self, mail_id: str) -> None:
        """It waits no more."""
        ...

    async def postpone(self, mail_id: str, due_at: datetime) -> None:
        """It is tried again then."""
        ...

    async def remove_expired(self, now: datetime) -> int:
        """Remove what is of no use any more, a limited number at a time; how many that were."""
        ...

    async def oldest(self) -> datetime | None:
        """Since when the oldest has waited."""
        ...


class Transaction(Protocol):
    """A transaction with mail."""

    @property
    def mail(self) -> MailStore: ...


class Delivery:
    """Lets mail leave. `writers` make a letter of a mail, by its kind.

    A mail leaves at least once: a replica that dies after the relay took it, and before that is stored, lets another
    one send it again, under the same Message-ID.
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

    def wake(self) -> None:
        """Look at once: something was queued here."""
        self._queued.give()

    async def run(self) -> None:
        """Deliver until it is cancelled. A look that fails is made again."""
        while True:
            try:
                busy = await self.deliver_due() == MAX_DELIVERIES
            except Exception as error:  # noqa: BLE001 - a look that breaks must not end all looks
                LOOKS_FAILED.inc()
                reason = error.reason if isinstance(error, Refusal) else type(error).__name__
                _log.warning("mail_not_seen", reason=reason)
                busy = False
            if not busy:
                await self._queued.within(LOOK_INTERVAL_S)

    async def deliver_due(self) -> int:
        """Try what is due, as much as may be on its way at a time; how many mails that were."""
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
