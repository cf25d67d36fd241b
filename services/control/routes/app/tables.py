"""The tables that the use cases need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.control.audit.app import AuditTrail
from services.control.routes.domain.canary import Canary, Measured, Outcome, Why
from services.control.routes.domain.groups import Groups, Side
from services.control.routes.domain.maintenance import Maintenance


@dataclass(frozen=True, slots=True)
class Decided:
    """The decisions of operators and canaries. `change` counts all changes, `version` only those of the groups."""

    change: int
    version: int
    base: int
    groups: Groups
    maintenance_number: int
    """The number of the present maintenance, or of the next one."""
    maintenance: Maintenance | None
    canaries: Sequence[Canary]
    """The canaries that are running."""


class RouteTables(Protocol):
    """Groups, canaries and maintenance."""

    async def lock(self) -> None:
        """Wait for other changes, and count this one. Replicas are notified of it when the transaction commits."""
        ...

    async def decided(self) -> Decided:
        """All decisions, as of one moment."""
        ...

    async def newest_canaries(self) -> Sequence[Canary]:
        """The newest canary of each group, running or not."""
        ...

    async def add_version(self, groups: Groups, base: int, now: datetime) -> int:
        """Make these groups the present ones. `base`: the version that a rollback goes to. Returns its number."""
        ...

    async def version(self, version: int) -> tuple[Groups, int] | None:
        """Groups and base of a version; None for one that is no longer kept."""
        ...

    async def set_maintenance(self, maintenance: Maintenance | None) -> None:
        """Close the site, or open it. After that, the next maintenance has the next number."""
        ...

    async def add_canary(self, group: str, hold_ms: int, min_requests: int, now: datetime) -> int:
        """Begin a canary at its first step. Returns its number."""
        ...

    async def step_canary(self, canary_id: int, step: int, now: datetime) -> None:
        """Move a canary to a step."""
        ...

    async def end_canaries(self, group: str | None, outcome: Outcome, why: Why, now: datetime) -> int:
        """End the running canaries of a group, or of all groups (None). Returns how many were ended."""
        ...

    async def add_measured(self, canary_id: int, step: int, side: Side, measured: Measured) -> None:
        """Add to the measurements of the replicas. Does nothing for a canary that is no longer kept."""
        ...

    async def measured(self, canary: Canary) -> tuple[Sequence[Measured], Measured]:
        """The measurements of the legacy side in each step, the newest one first, and of the shell in the present
        one."""
        ...

    async def sweep(self, versions: int, ended_before: datetime) -> None:
        """Keep the newest `versions` versions, and remove canaries that ended before `ended_before`."""
        ...


class Routed(Protocol):
    """A transaction that reads and writes the decisions of operators."""

    @property
    def routes(self) -> RouteTables: ...

    @property
    def audit(self) -> AuditTrail: ...
