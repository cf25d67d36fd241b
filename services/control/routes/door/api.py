"""RouteService: the decisions of operators, over control's internal port."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from oa_platform.telemetry.context import current_request_id
from openagents.control.v1 import route_service_pb2 as pb
from openagents.control.v1.route_service_pb2_grpc import RouteServiceServicer
from services.control.audit.domain import Origin
from services.control.routes.app.operators import Operators
from services.control.routes.domain.canary import Canary
from services.control.routes.domain.groups import Group, Side
from services.control.routes.domain.maintenance import Maintenance

_SIDES = {Side.SHELL: pb.ROUTE_SIDE_SHELL, Side.LEGACY: pb.ROUTE_SIDE_LEGACY}
_PINS = {value: side for side, value in _SIDES.items()}


class RouteApi(RouteServiceServicer):
    """The methods of RouteService."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def GetRoutes(self, request: pb.GetRoutesRequest, context: Any) -> pb.GetRoutesResponse:
        """Return everything as it is now."""
        decided, canaries = await self._operators.show()
        return pb.GetRoutesResponse(
            version=decided.version,
            groups=_groups(decided.groups),
            canaries=[_canary(one) for one in canaries],
            maintenance=_maintenance(decided.maintenance) if decided.maintenance else None,
        )

    async def SetRoute(self, request: pb.SetRouteRequest, context: Any) -> pb.SetRouteResponse:
        """Add or replace a group."""
        given = request.group
        group = Group(given.name, tuple(given.prefixes), _PINS.get(given.pinned), given.percent)
        return pb.SetRouteResponse(version=await self._operators.set_group(group, _origin(), _expected(request)))

    async def DeleteRoute(self, request: pb.DeleteRouteRequest, context: Any) -> pb.DeleteRouteResponse:
        """Delete a group."""
        version = await self._operators.delete_group(request.name, _origin(), _expected(request))
        return pb.DeleteRouteResponse(version=version)

    async def RollBackRoutes(self, request: pb.RollBackRoutesRequest, context: Any) -> pb.RollBackRoutesResponse:
        """Take back one change."""
        version, groups = await self._operators.roll_back(_origin(), _expected(request))
        return pb.RollBackRoutesResponse(version=version, groups=_groups(groups))

    async def StartCanary(self, request: pb.StartCanaryRequest, context: Any) -> pb.StartCanaryResponse:
        """Start a canary at its first step."""
        canary_id = await self._operators.start_canary(
            request.group, request.hold_ms, request.min_requests, _origin(), _expected(request)
        )
        return pb.StartCanaryResponse(canary_id=canary_id)

    async def StartMaintenance(self, request: pb.StartMaintenanceRequest, context: Any) -> pb.StartMaintenanceResponse:
        """Close the site."""
        await self._operators.start_maintenance(request.notice, request.retry_after_ms, _origin())
        return pb.StartMaintenanceResponse()

    async def EndMaintenance(self, request: pb.EndMaintenanceRequest, context: Any) -> pb.EndMaintenanceResponse:
        """Open the site."""
        await self._operators.end_maintenance(_origin())
        return pb.EndMaintenanceResponse()

    async def CreateBypass(self, request: pb.CreateBypassRequest, context: Any) -> pb.CreateBypassResponse:
        """Create a bypass."""
        bypass = await self._operators.create_bypass(request.ttl_ms, _origin())
        expires = datetime.fromtimestamp(bypass.expires_s, UTC)
        return pb.CreateBypassResponse(bypass=bypass.text, expire_time=_time(expires))


def _expected(
    request: pb.SetRouteRequest | pb.DeleteRouteRequest | pb.RollBackRoutesRequest | pb.StartCanaryRequest,
) -> int | None:
    return request.expected_version if request.HasField("expected_version") else None


def _origin() -> Origin:
    return Origin.of_operator(current_request_id())


def _groups(groups: Iterable[Group]) -> list[pb.RouteGroup]:
    return [
        pb.RouteGroup(
            name=one.name,
            prefixes=one.prefixes,
            pinned=_SIDES[one.pinned] if one.pinned else pb.ROUTE_SIDE_UNSPECIFIED,
            percent=one.percent,
        )
        for one in groups
    ]


def _canary(one: Canary) -> pb.Canary:
    return pb.Canary(
        canary_id=one.canary_id,
        group=one.group,
        percent=one.percent,
        step_time=_time(one.step_at),
        end_time=_time(one.ended_at) if one.ended_at else None,
        outcome=one.outcome,
        reason=one.reason,
    )


def _maintenance(one: Maintenance) -> pb.Maintenance:
    return pb.Maintenance(start_time=_time(one.since), notice=one.notice, retry_after_ms=one.retry_after_ms)


def _time(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp
