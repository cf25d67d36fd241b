"""Reading the audit log: lists for people, and the chain for verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from oa_base.refusal import Refusal
from oa_runlog.proof.audit import AuditHead, audit_start
from services.control.audit.domain import address_digest
from services.control.audit_log.app.tables import Reading
from services.control.audit_log.domain import Filters, RecordedEvent
from services.control.audit_log.limits import AuditLogLimits
from services.control.mail.domain.address import canonical_email
from services.control.policy.domain import StandingPrincipal
from services.control.transactions.app import Transactions

NEWEST_ID = (1 << 63) - 1
"""An id above that of every row."""


class EventPage(NamedTuple):
    """Events, newest first. The next page has the events below `next_below`; 0 if there is none."""

    events: Sequence[RecordedEvent]
    next_below: int


@dataclass(frozen=True, slots=True)
class ChainPart:
    """Events of an org's chain from `start` on, each with the head after it. `head` is the end of the whole chain."""

    org_id: str
    start: AuditHead
    events: Sequence[tuple[RecordedEvent, AuditHead]]
    head: AuditHead

    @property
    def begins_late(self) -> bool:
        """Whether the first event is not the one after the start."""
        return bool(self.events) and self.events[0][1].sequence != self.start.sequence + 1


class AuditLog:
    """The log of an org, or of events that belong to no org (empty `org_id`), and events that concern the caller.

    These methods assume that the caller may read the log. Lists don't shift between pages, because later events come
    before the first page.
    """

    def __init__(self, transactions: Transactions[Reading], limits: AuditLogLimits, hmac_key: bytes) -> None:
        self._transactions = transactions
        self._limits = limits
        self._hmac_key = hmac_key

    async def list(self, org_id: str, filters: Filters, *, size: int = 0, below_id: int = NEWEST_ID) -> EventPage:
        """Events of an org. A page looks at a bounded number of events, so it may be short. A target may be an address,
        whose events have its digest."""
        size = size or self._limits.page_items
        filters = replace(filters, address=self._digest(filters.target))
        async with self._transactions.autocommit() as tx:
            looked = await tx.audit_log.looked(org_id, below_id, self._limits.looked_at)
            events = await tx.audit_log.listed(org_id, below_id, looked.lowest_id, filters, size + 1)
        if len(events) > size:
            return EventPage(events[:size], events[size - 1].audit_id)
        return EventPage(events, looked.lowest_id if looked.events == self._limits.looked_at else 0)

    def _digest(self, target: str) -> str | None:
        """The digest of a target that is an address; None for others."""
        try:
            return address_digest(self._hmac_key, canonical_email(target))
        except Refusal:
            return None

    async def own(self, principal: StandingPrincipal, *, size: int = 0, below_id: int = NEWEST_ID) -> EventPage:
        """Events that the caller did, or that were done to the caller, in every org."""
        size = size or self._limits.page_items
        async with self._transactions.autocommit() as tx:
            events = await tx.audit_log.own(principal.subject, below_id, size + 1)
        shown = [event.seen_by(principal.subject) for event in events[:size]]
        return EventPage(shown, shown[-1].audit_id if len(events) > size else 0)

    async def read(self, org_id: str, after_sequence: int) -> ChainPart:
        """A part of the chain of an org. Raises Refusal `invalid_value` for a place beyond its end."""
        part = await self._part(org_id, after_sequence)
        if part.begins_late:  # the events after the start may just have been dropped
            part = await self._part(org_id, after_sequence)
        return part

    async def require_known(self, org_id: str) -> None:
        """Check the id that an operator gave: nothing is wrong with the log of an org that never was. Empty: no org.

        Raises Refusal `not_found`.
        """
        if not org_id:
            return
        async with self._transactions.autocommit() as tx:
            if not await tx.audit_log.knows(org_id):
                message = "there is no such org, and there are no events of one; look with `oa admin org list`"
                raise Refusal("not_found", message, field="org_id")

    async def _part(self, org_id: str, after_sequence: int) -> ChainPart:
        async with self._transactions.begin() as tx:
            beginning = audit_start(org_id)
            head = await tx.audit_log.head(org_id) or beginning
            if after_sequence > head.sequence:
                message = f"the log has {head.sequence} events; ask for what comes after one of them"
                raise Refusal("invalid_value", message, field="after_sequence")
            start = await tx.audit_log.start(org_id, after_sequence) or beginning
            events = await tx.audit_log.sealed(org_id, start.sequence, self._limits.chain_items)
        # Events that were sealed between two reads belong to the next part.
        events = [each for each in events if each[1].sequence <= head.sequence]
        return ChainPart(org_id, start, events, head)
