"""What the use cases need of the database."""

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
    """What operators and canaries have decided. `change` counts all of it, `version` the groups alone."""

    change: int
    version: int
    base: int
    groups: Groups
    maintenance_number: int
    """Of the present maintenance, or of the next one."""
    maintenance: Maintenance | None
    canaries: Sequence[Canary]
    """Those that run."""


class RouteTables(Protocol):
    """Groups, canaries and maintenance."""

    async def lock(self) -> None:
        """Wait for other changes, and count this one: replicas hear of it when the transaction commits."""
        ...

    async def decided(self) -> Decided:
        """Everything, of one moment."""
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
        """Close the site, or open it: the next maintenance has the next number."""
        ...

    async def add_canary(self, group: str, hold_ms: int, min_requests: int, now: datetime) -> int:
        """Begin one, at its first step. Returns its number."""
        ...

    async def step_canary(self, canary_id: int, step: int, now: datetime) -> None:
        """Put it on a step."""
        ...

    async def end_canaries(self, group: str | None, outcome: Outcome, why: Why, now: datetime) -> int:
        """End what runs of a group, or of all groups (None). Returns how many that were."""
        ...

    async def add_measured(self, canary_id: int, step: int, side: Side, measured: Measured) -> None:
        """Add to what the replicas have measured; nothing for a canary that is no longer kept."""
        ...

    async def measured(self, canary: Canary) -> tuple[Measured, Measured]:
        """Of the legacy side in all steps, and of the shell in the present one."""
        ...

    async def sweep(self, versions: int, ended_before: datetime) -> None:
        """Keep so many versions, and no canary that ended before."""
        ...


class Routed(Protocol):
    """A transaction that reads and writes what operators decide."""

    @property
    def routes(self) -> RouteTables: ...

    @property
    def audit(self) -> AuditTrail: ...
