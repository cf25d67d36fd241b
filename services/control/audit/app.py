"""The interfaces with which use cases record what they do."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.housekeeping.app import keep_writing
from services.control.transactions.app import Transactions

INTERVAL_S = 60.0
MAX_NETWORKS = 1000
"""Maximum number of networks that get a row of their own in a minute."""
OTHER_NETWORKS = "others"
"""Stands for all networks beyond `MAX_NETWORKS`."""


class AuditTrail(Protocol):
    """The audit trail. An entry is written in the transaction that it records."""

    async def add(self, entry: AuditEntry, now: datetime) -> None:
        """Record an entry."""
        ...


class Audited(Protocol):
    """A transaction that can record what is done in it."""

    @property
    def audit(self) -> AuditTrail: ...


class RefusedCredentials:
    """Refused keys, codes and refresh tokens: one row per minute for each network, with a count.

    A row for each refusal would let a stranger fill the table. So refusals are counted here and stored when the minute
    is over; a process that is killed loses the counts of one minute. The log contains each refusal.
    """

    def __init__(self, transactions: Transactions[Audited], clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._refused: dict[str, Counter[str]] = {}

    def note(self, network: str, reason: str) -> None:
        """Count a credential that came from a network and was refused."""
        self._of(network)[reason] += 1

    async def write_down(self) -> None:
        """Store a row for each network that has counts. Raises Refusal `unavailable`, and keeps the counts then."""
        written, self._refused = self._refused, {}
        if not written:
            return
        try:
            async with self._transactions.begin() as tx:
                for network, reasons in written.items():
                    await tx.audit.add(_entry(network, reasons), self._clock.now())
        except BaseException:  # a drain cancels it
            later, self._refused = self._refused, written
            for network, reasons in later.items():
                self._of(network).update(reasons)
            raise

    def _of(self, network: str) -> Counter[str]:
        """The counts of a network, or of all beyond the maximum."""
        if network not in self._refused and len(self._refused) >= MAX_NETWORKS:
            network = OTHER_NETWORKS
        return self._refused.setdefault(network, Counter())

    async def keep_writing(self, interval_s: float = INTERVAL_S) -> None:
        """Store the counts each minute, and once more when canceled."""
        await keep_writing(self.write_down, interval_s, still_waits="audit_of_refusals_waits")


def _entry(network: str, reasons: Counter[str]) -> AuditEntry:
    by_count = reasons.most_common()
    counts = ", ".join(f"{count} {reason}" for reason, count in by_count)
    return AuditEntry(Action.CREDENTIALS_REFUSED, Origin(network=network), target=counts, reason=by_count[0][0])
