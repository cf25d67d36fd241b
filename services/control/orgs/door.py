"""OrgService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import org_service_pb2 as org_pb2
from services.control.calls.app import Call, Handlers, handlers_of
from services.control.orgs.app import Orgs
from services.control.orgs.domain import Membership


class OrgApi:
    """The methods of OrgService."""

    def __init__(self, orgs: Orgs) -> None:
        self._orgs = orgs

    def handlers(self) -> Handlers:
        """One handler a method."""
        return handlers_of("OrgService", self.ListOrgs)

    async def ListOrgs(self, _: org_pb2.ListOrgsRequest, call: Call) -> Message:
        """The caller's orgs."""
        return org_pb2.ListOrgsResponse(orgs=[_org(membership) for membership in await self._orgs.list(call.caller)])


def _org(membership: Membership) -> org_pb2.Org:
    return org_pb2.Org(
        org_id=membership.org_id,
        name=membership.name,
        personal=membership.personal,
        role=org_pb2.OrgRole.Value(f"ORG_ROLE_{membership.role.value.upper()}"),
    )
