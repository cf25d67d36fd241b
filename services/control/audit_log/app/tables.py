"""What the audit log needs of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from oa_runlog.proof.audit import AuditHead
from services.control.audit_log.domain import Filters, RecordedEvent, Seal


class Backlog(NamedTuple):
    """What waits for its seal."""

    events: int
    oldest: datetime | None


class Looked(NamedTuple):
    """The newest events of an org below a row, as far as a page looks: how many they are, and the last of them."""

    events: int
    lowest_id: int


class SealStore(Protocol):
    """Events on their way into the chains."""

    async def lock(self) -> bool:
        """Whether this transaction may seal: one at a time does."""
        ...

    async def waiting(self, limit: int) -> Sequence[RecordedEvent]:
        """Events without a seal, in the order in which they get one."""
        ...

    async def heads(self, org_ids: Sequence[str]) -> Mapping[str, AuditHead]:
        """Where the chains of these orgs stand; none for an org without a seal."""
        ...

    async def seal(self, seals: Sequence[Seal]) -> None:
        """Store them; their events no longer wait."""
        ...

    async def backlog(self) -> Backlog:
        """What waits."""
        ...

    async def drop(self, before: datetime, limit: int) -> int:
        """Drop the oldest events from before a time, and of the last 30 days none; how many went."""
        ...


class AuditReader(Protocol):
    """The log, read."""

    async def looked(self, org_id: str, below_id: int, limit: int) -> Looked:
        """How far `limit` events of the org below a row reach."""
        ...

    async def listed(
        self, org_id: str, below_id: int, lowest_id: int, filters: Filters, limit: int
    ) -> Sequence[RecordedEvent]:
        """Events of the org between two rows, the newest first."""
        ...

    async def own(self, subject: str, below_id: int, limit: int) -> Sequence[RecordedEvent]:
        """Events that somebody did, or that were done to this person, the newest first."""
        ...

    async def head(self, org_id: str) -> AuditHead | None:
        """Where the org's chain stands."""
        ...

    async def start(self, org_id: str, after_sequence: int) -> AuditHead | None:
        """The first place at or after a number from which on all events are kept; None for the beginning."""
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
