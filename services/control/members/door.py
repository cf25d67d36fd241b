"""MemberService."""

from __future__ import annotations

import hashlib

from google.protobuf.message import Message

from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.control.v1 import member_service_pb2 as pb
from openagents.control.v1.org_service_pb2 import OrgRole
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.members.app import Members
from services.control.members.domain import Member
from services.control.orgs.domain import role_name, role_named


class MemberApi:
    """The methods of MemberService."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def handlers(self) -> Handlers:
        """One handler per method."""
        return handlers_of(
            "MemberService",
            self.ListMembers,
            self.SetMemberRole,
            self.RemoveMember,
            self.LeaveOrg,
            self.TransferOwnership,
        )

    async def ListMembers(self, request: pb.ListMembersRequest, call: Call) -> Message:
        """Return a page of members."""
        digest = hashlib.sha256(f"members:{request.org_id}".encode()).digest()
        after = decode_page_token(request.page_token, digest)
        members, last = await self._members.page(call.caller, request.org_id, request.page_size, after)
        return pb.ListMembersResponse(members=map(_message, members), next_page_token=encode_page_token(last, digest))

    async def SetMemberRole(self, request: pb.SetMemberRoleRequest, call: Call) -> Message:
        """Give a member another role."""
        member = await self._members.set_role(
            call.caller, request.org_id, request.user_id, role_named(OrgRole.Name(request.role)), call.origin
        )
        return pb.SetMemberRoleResponse(member=_message(member))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, call: Call) -> Message:
        """End a member's membership."""
        await self._members.remove(call.caller, request.org_id, request.user_id, call.origin)
        return pb.RemoveMemberResponse()

    async def LeaveOrg(self, request: pb.LeaveOrgRequest, call: Call) -> Message:
        """End the caller's own membership."""
        await self._members.leave(call.caller, request.org_id, call.origin)
        return pb.LeaveOrgResponse()

    async def TransferOwnership(self, request: pb.TransferOwnershipRequest, call: Call) -> Message:
        """Make another member the owner."""
        owner = await self._members.transfer(call.caller, request.org_id, request.user_id, call.origin)
        return pb.TransferOwnershipResponse(owner=_message(owner))


def _message(member: Member) -> pb.Member:
    return pb.Member(
        user_id=member.user_id,
        email=member.email,
        role=OrgRole.Value(role_name(member.role)),
        create_time=timestamp(member.joined_at),
    )
