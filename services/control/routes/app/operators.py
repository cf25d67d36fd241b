"""Actions of operators on groups, canaries and maintenance. Each is one transaction with its audit row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin
from services.control.routes.app.tables import Decided, Routed, RouteTables
from services.control.routes.domain.canary import Canary, Outcome, Why
from services.control.routes.domain.groups import Group, Groups, Side, no_group
from services.control.routes.domain.maintenance import DEFAULT_NOTICE, Maintenance, bypass_of
from services.control.routes.limits import (
    DEFAULT_BYPASS_S,
    DEFAULT_HOLD_MS,
    DEFAULT_MIN_REQUESTS,
    DEFAULT_RETRY_MS,
    KEPT_CANARY_S,
    KEPT_VERSIONS,
)
from services.control.transactions.app import Transactions


class Shown(NamedTuple):
    """All decisions, and the newest canary of each group."""

    decided: Decided
    canaries: list[Canary]


class Bypass(NamedTuple):
    """A bypass, and when it expires, in seconds since 1970."""

    text: str
    expires_s: int


@dataclass(frozen=True, kw_only=True)
class Operators:
    """The use cases of operators. `sides` are those that this installation has. `hmac_key` signs bypasses."""

    transactions: Transactions[Routed]
    clock: Clock
    sides: frozenset[Side]
    hmac_key: bytes

    async def show(self) -> Shown:
        """Return the present state. Raises Refusal `unavailable`, as all of these methods do."""
        async with self.transactions.autocommit() as tx:
            return Shown(await tx.routes.decided(), list(await tx.routes.newest_canaries()))

    async def set_group(self, group: Group, origin: Origin, expected: int | None = None) -> int:
        """Add a group, or replace the one with its name. Returns the new version. `expected`: the version that has to
        be present, here and below.

        Raises Refusal `invalid_value`, `limit_reached`, `version_conflict`.
        """
        if group.pinned is not None and group.pinned not in self.sides:
            raise self._no_side(group.pinned, "group.pinned")
        async with self.transactions.begin() as tx:
            before = await _decided(tx.routes, expected)
            version = await self._changed(tx.routes, before, before.groups.with_group(group))
            await self._end(tx.routes, group.name, Outcome.REPLACED, Why.NONE)
            await self._audit(tx, Action.ROUTE_SET, origin, group.name)
        return version

    async def delete_group(self, name: str, origin: Origin, expected: int | None = None) -> int:
        """Delete a group. Returns the new version. Raises Refusal `not_found`, `version_conflict`."""
        async with self.transactions.begin() as tx:
            before = await _decided(tx.routes, expected)
            version = await self._changed(tx.routes, before, before.groups.without(name))
            await self._end(tx.routes, name, Outcome.REPLACED, Why.NONE)
            await self._audit(tx, Action.ROUTE_DELETED, origin, name)
        return version

    async def roll_back(self, origin: Origin, expected: int | None = None) -> tuple[int, Groups]:
        """Take back the last change by an operator. Returns the new version and its groups. Raises Refusal `not_found`
        when none is left, `version_conflict`."""
        async with self.transactions.begin() as tx:
            now = await _decided(tx.routes, expected)
            target = await tx.routes.version(now.base)
            if target is None:
                message = "there is no change that could be taken back; oa admin route set makes one"
                raise Refusal("not_found", message)
            groups, base = target
            version = await tx.routes.add_version(groups, base, self.clock.now())
            await self._end(tx.routes, None, Outcome.ROLLED_BACK, Why.OPERATOR)
            await self._audit(tx, Action.ROUTES_ROLLED_BACK, origin, f"to version {now.base}")
        return version, groups

    async def start_canary(
        self, name: str, hold_ms: int, min_requests: int, origin: Origin, expected: int | None = None
    ) -> int:
        """Begin to move a group to the shell. Returns the canary's number. Raises Refusal `not_found`,
        `already_exists`, `invalid_value`, `version_conflict`."""
        for side in Side:
            if side not in self.sides:
                raise self._no_side(side, "group")
        async with self.transactions.begin() as tx:
            before = await _decided(tx.routes, expected)
            group = before.groups.get(name)
            if group is None:
                raise no_group("group")
            if group.pinned is not None:
                message = f"the group is pinned to {group.pinned}; set it with a percentage instead"
                raise Refusal("invalid_value", message, field="group")
            if any(one.group == name for one in before.canaries):
                message = "the group has a canary already; wait for its end, or take it back"
                raise Refusal("already_exists", message, field="group")
            await self._changed(tx.routes, before, before.groups.at_percent(name, 0))
            hold_ms, min_requests = hold_ms or DEFAULT_HOLD_MS, min_requests or DEFAULT_MIN_REQUESTS
            canary_id = await tx.routes.add_canary(name, hold_ms, min_requests, self.clock.now())
            await self._audit(tx, Action.CANARY_STARTED, origin, name)
        return canary_id

    async def start_maintenance(self, notice: str, retry_after_ms: int, origin: Origin) -> None:
        """Close the site. If it is closed already, change what people are told."""
        async with self.transactions.begin() as tx:
            await tx.routes.lock()
            before = await tx.routes.decided()
            since = before.maintenance.since if before.maintenance else self.clock.now()
            number = before.maintenance_number
            maintenance = Maintenance(number, since, notice or DEFAULT_NOTICE, retry_after_ms or DEFAULT_RETRY_MS)
            await tx.routes.set_maintenance(maintenance)
            await self._audit(tx, Action.MAINTENANCE_STARTED, origin)

    async def end_maintenance(self, origin: Origin) -> None:
        """Open the site, if it is closed."""
        async with self.transactions.begin() as tx:
            await tx.routes.lock()
            if (await tx.routes.decided()).maintenance is None:
                return
            await tx.routes.set_maintenance(None)
            await self._audit(tx, Action.MAINTENANCE_ENDED, origin)

    async def create_bypass(self, ttl_ms: int, origin: Origin) -> Bypass:
        """Create a bypass for the present maintenance, or for the next one."""
        async with self.transactions.begin() as tx:
            number = (await tx.routes.decided()).maintenance_number
            expires_s = int(self.clock.time() + (ttl_ms / 1000 or DEFAULT_BYPASS_S))
            await self._audit(tx, Action.BYPASS_MADE, origin)
        return Bypass(bypass_of(self.hmac_key, number, expires_s), expires_s)

    async def sweep(self) -> None:
        """Remove the versions and canaries that nobody goes back to."""
        async with self.transactions.begin() as tx:
            await tx.routes.sweep(KEPT_VERSIONS, self.clock.now() - timedelta(seconds=KEPT_CANARY_S))

    async def _changed(self, routes: RouteTables, before: Decided, groups: Groups) -> int:
        """Add a version made by an operator. If a canary is running, a rollback goes back to before the canary."""
        base = before.base if before.canaries else before.version
        return await routes.add_version(groups, base, self.clock.now())

    async def _end(self, routes: RouteTables, group: str | None, outcome: Outcome, why: Why) -> None:
        await routes.end_canaries(group, outcome, why, self.clock.now())

    async def _audit(self, tx: Routed, action: Action, origin: Origin, target: str = "") -> None:
        await tx.audit.add(AuditEntry(action, origin, OPERATOR, target=target), self.clock.now())

    @staticmethod
    def _no_side(side: Side, field: str) -> Refusal:
        setting = "OA_WEB_ROOT" if side is Side.SHELL else "OA_LEGACY_URL"
        return Refusal("invalid_value", f"there is no {side} side here; set {setting} of control first", field=field)


async def _decided(routes: RouteTables, expected: int | None) -> Decided:
    """What is decided, for a change that is based on a version, or on any (None). Raises Refusal `version_conflict`."""
    await routes.lock()
    decided = await routes.decided()
    if expected is not None and decided.version != expected:
        message = f"version {decided.version} is present, by another change; look at it, and decide again"
        raise Refusal("version_conflict", message, field="expected_version", metadata={"version": str(decided.version)})
    return decided
