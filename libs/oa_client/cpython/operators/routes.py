"""Web routes, canaries and maintenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import route_service_pb2 as pb
from openagents.control.v1.route_service_pb2_grpc import RouteServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.route_service_pb2_grpc import RouteServiceAsyncStub

_SIDES = {"": pb.ROUTE_SIDE_UNSPECIFIED, "shell": pb.ROUTE_SIDE_SHELL, "legacy": pb.ROUTE_SIDE_LEGACY}
_NAMES = {value: name for name, value in _SIDES.items()}


@dataclass(frozen=True)
class RouteGroup:
    """Paths that move together. `pinned`: the side for everybody, or empty. `percent`: otherwise the shell's share."""

    name: str
    prefixes: Sequence[str]
    pinned: str
    percent: int

    @property
    def document(self) -> Mapping[str, object]:
        """The JSON form, for programs."""
        return {"name": self.name, "prefixes": list(self.prefixes), "pinned": self.pinned, "percent": self.percent}


@dataclass(frozen=True)
class Canary:
    """A group on its way to the shell, or one that was. `outcome` is empty while it runs."""

    group: str
    percent: int
    step_at: str
    outcome: str
    reason: str

    @property
    def document(self) -> Mapping[str, object]:
        """The JSON form, for programs."""
        return {
            "group": self.group,
            "percent": self.percent,
            "stepAt": self.step_at,
            "outcome": self.outcome,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Routes:
    """The decisions of operators. `maintenance_notice`: what people are told; None while the site is open."""

    version: int
    groups: Sequence[RouteGroup]
    canaries: Sequence[Canary]
    maintenance_notice: str | None

    @property
    def document(self) -> Mapping[str, object]:
        """The JSON form, for programs."""
        return {
            "version": self.version,
            "groups": [one.document for one in self.groups],
            "canaries": [one.document for one in self.canaries],
            "maintenance": self.maintenance_notice,
        }


class RouteOperators:
    """RouteService over a channel, with the operators' token. Every method may raise Refusal.

    `expected_version`: the version that has to be present, or the change is refused as `version_conflict`.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: RouteServiceAsyncStub = RouteServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def read(self) -> Routes:
        """Return everything as it is now."""
        found = await self._calls.done(self._stub.GetRoutes, pb.GetRoutesRequest())
        canaries = [
            Canary(one.group, one.percent, one.step_time.ToJsonString(), one.outcome, one.reason)
            for one in found.canaries
        ]
        notice = found.maintenance.notice if found.HasField("maintenance") else None
        return Routes(found.version, [_group(one) for one in found.groups], canaries, notice)

    async def set(self, group: RouteGroup, expected_version: int | None = None) -> int:
        """Replace the group with the same name, or add the group; return the new version."""
        message = pb.RouteGroup(
            name=group.name, prefixes=group.prefixes, pinned=_SIDES[group.pinned], percent=group.percent
        )
        request = pb.SetRouteRequest(group=message, expected_version=expected_version)
        return int((await self._calls.done(self._stub.SetRoute, request)).version)

    async def delete(self, name: str, expected_version: int | None = None) -> int:
        """Delete a group, and return the new version."""
        request = pb.DeleteRouteRequest(name=name, expected_version=expected_version)
        return int((await self._calls.done(self._stub.DeleteRoute, request)).version)

    async def roll_back(self, expected_version: int | None = None) -> Routes:
        """Undo the last change to the groups, and return them."""
        request = pb.RollBackRoutesRequest(expected_version=expected_version)
        done = await self._calls.done(self._stub.RollBackRoutes, request)
        return Routes(done.version, [_group(one) for one in done.groups], [], None)

    async def start_canary(
        self, group: str, hold_ms: int, min_requests: int, expected_version: int | None = None
    ) -> int:
        """Begin to move a group to the shell, and return the canary's number. 0 means the installation's own value."""
        request = pb.StartCanaryRequest(
            group=group, hold_ms=hold_ms, min_requests=min_requests, expected_version=expected_version
        )
        return int((await self._calls.done(self._stub.StartCanary, request)).canary_id)

    async def start_maintenance(self, notice: str, retry_after_ms: int) -> None:
        """Close the site."""
        request = pb.StartMaintenanceRequest(notice=notice, retry_after_ms=retry_after_ms)
        await self._calls.done(self._stub.StartMaintenance, request)

    async def end_maintenance(self) -> None:
        """Open the site again."""
        await self._calls.done(self._stub.EndMaintenance, pb.EndMaintenanceRequest())

    async def create_bypass(self, ttl_ms: int) -> tuple[str, str]:
        """Return a bypass, and when it ends."""
        made = await self._calls.done(self._stub.CreateBypass, pb.CreateBypassRequest(ttl_ms=ttl_ms))
        return made.bypass, made.expire_time.ToJsonString()


def _group(one: pb.RouteGroup) -> RouteGroup:
    return RouteGroup(one.name, list(one.prefixes), _NAMES.get(one.pinned, ""), one.percent)
