"""OrgService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import org_service_pb2 as org_pb2
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.orgs.app import Orgs
from services.control.orgs.domain import Membership, role_name


class OrgApi:
    """The methods of OrgService."""

    def __init__(self, orgs: Orgs) -> None:
        self._orgs = orgs

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of(
            "OrgService",
            self.ListOrgs,
            self.GetOrg,
            self.CreateOrg,
            self.RenameOrg,
            self.DeleteOrg,
            self.RestoreOrg,
        )

    async def ListOrgs(self, _: org_pb2.ListOrgsRequest, call: Call) -> Message:
        """List the caller's orgs."""
        return org_pb2.ListOrgsResponse(orgs=[_org(one) for one in await self._orgs.list(call.caller)])

    async def GetOrg(self, request: org_pb2.GetOrgRequest, call: Call) -> Message:
        """Return one of the caller's orgs."""
        return org_pb2.GetOrgResponse(org=_org(await self._orgs.get(call.caller, request.org_id)))

    async def CreateOrg(self, request: org_pb2.CreateOrgRequest, call: Call) -> Message:
        """Create an org."""
        made = await self._orgs.create(call.caller, request.name, call.origin)
        return org_pb2.CreateOrgResponse(org=_org(made))

    async def RenameOrg(self, request: org_pb2.RenameOrgRequest, call: Call) -> Message:
        """Give an org another name."""
        renamed = await self._orgs.rename(call.caller, request.org_id, request.name, call.origin)
        return org_pb2.RenameOrgResponse(org=_org(renamed))

    async def DeleteOrg(self, request: org_pb2.DeleteOrgRequest, call: Call) -> Message:
        """Close an org."""
        closed = await self._orgs.delete(call.caller, request.org_id, call.origin)
        return org_pb2.DeleteOrgResponse(org=_org(closed))

    async def RestoreOrg(self, request: org_pb2.RestoreOrgRequest, call: Call) -> Message:
        """Open a deleted org again."""
        opened = await self._orgs.restore(call.caller, request.org_id, call.origin)
        return org_pb2.RestoreOrgResponse(org=_org(opened))


def _org(membership: Membership) -> org_pb2.Org:
    org = membership.org
    return org_pb2.Org(
        org_id=org.org_id,
        name=org.name,
        personal=org.personal,
        role=org_pb2.OrgRole.Value(role_name(membership.role)),
        create_time=timestamp(org.created_at),
        delete_time=timestamp(org.delete_at) if org.delete_at else None,
    )
