"""What use cases need in order to record what they do."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from services.control.audit.domain import AuditEntry


class AuditTrail(Protocol):
    """The audit trail, written in the transaction of what it records."""

    async def add(self, entry: AuditEntry, now: datetime) -> None:
        """Record it."""
        ...


class Audited(Protocol):
    """A transaction that can record what is done in it."""

    @property
    def audit(self) -> AuditTrail: ...
