"""The interfaces that the audit log needs of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from oa_runlog.proof.audit import AuditHead
from services.control.audit_log.domain import Filters, RecordedEvent, Seal


class Backlog(NamedTuple):
    """The events that wait for a seal."""

    events: int
    oldest_s: float | None
    """Seconds since the epoch."""


class Looked(NamedTuple):
    """The newest events of an org below a row that a page looks at: their number, and the lowest id."""

    events: int
    lowest_id: int


class SealStore(Protocol):
    """Events that get their places in the chains."""

    async def lock(self) -> bool:
        """Whether this transaction may seal. Only one at a time may."""
        ...

    async def waiting(self, limit: int, left_out: Sequence[int]) -> Sequence[int]:
        """The ids of events without a seal, the oldest first, without those that are left out."""
        ...

    async def events(self, ids: Sequence[int]) -> Sequence[RecordedEvent]:
        """Those of these events that have no seal, in the order in which they are sealed."""
        ...

    async def heads(self, org_ids: Sequence[str]) -> Mapping[str, AuditHead]:
        """The heads of the chains of these orgs; no entry for an org without a seal."""
        ...

    async def seal(self, seals: Sequence[Seal]) -> None:
        """Store seals, whose events no longer wait."""
        ...

    async def backlog(self) -> Backlog:
        """The events that wait."""
        ...

    async def drop(self, before: datetime, limit: int) -> int:
        """Drop the oldest events from before a time, but none of the last 30 days. Return the number dropped."""
        ...


class AuditReader(Protocol):
    """Reads the log."""

    async def looked(self, org_id: str, below_id: int, limit: int) -> Looked:
        """The newest events of the org below a row, at most `limit`: their number, and the lowest id."""
        ...

    async def listed(
        self, org_id: str, below_id: int, lowest_id: int, filters: Filters, limit: int
    ) -> Sequence[RecordedEvent]:
        """Events of the org between two rows, newest first."""
        ...

    async def own(self, subject: str, below_id: int, limit: int) -> Sequence[RecordedEvent]:
        """Events whose actor is the subject or whose target is this person, newest first."""
        ...

    async def knows(self, org_id: str) -> bool:
        """Whether there is such an org, or was one that still has events."""
        ...

    async def head(self, org_id: str) -> AuditHead | None:
        """The head of the org's chain."""
        ...

    async def start(self, org_id: str, after_sequence: int) -> AuditHead | None:
        """The first place at or after a number from which all events are kept; None for the beginning."""
        ...

    async def sealed(self, org_id: str, after_sequence: int, limit: int) -> Sequence[tuple[RecordedEvent, AuditHead]]:
        """The next events of the chain, each with the head after it."""
        ...


class Sealing(Protocol):
    """A transaction in which events are sealed."""

    @property
    def seals(self) -> SealStore: ...


class Reading(Protocol):
    """A transaction in which the log is read."""

    @property
    def audit_log(self) -> AuditReader: ...
