"""The caller's orgs, their members and invitations."""

from __future__ import annotations

from google.protobuf.message import Message

from oa_client.core import orgs as wire
from oa_client.core.orgs import Invitation, Joined, Member, MemberPage, Org
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge, M
from openagents.control.v1 import invitation_service_pb2, member_service_pb2, org_service_pb2

_ORGS = "openagents.control.v1.OrgService"
_MEMBERS = "openagents.control.v1.MemberService"
_INVITATIONS = "openagents.control.v1.InvitationService"


class Orgs:
    """A person's orgs. Every method may raise Refusal, `not_found` among them. A call is sent once, unless its
    repetition is answered as the first one: a refusal of the repetition would hide that the first one succeeded."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def _call(self, method: str, request: Message, response: type[M], attempts: int = 1) -> M:
        return await self._edge.call(method, request, response, self._tokens, attempts=attempts)

    async def list(self) -> tuple[Org, ...]:
        """Return the caller's orgs, the own org first."""
        request = org_service_pb2.ListOrgsRequest()
        answer = await self._call(f"{_ORGS}/ListOrgs", request, org_service_pb2.ListOrgsResponse, ATTEMPTS)
        return tuple(map(wire.org, answer.orgs))

    async def create(self, name: str) -> Org:
        """Create an org. Each call creates another one."""
        request = org_service_pb2.CreateOrgRequest(name=name)
        answer = await self._call(f"{_ORGS}/CreateOrg", request, org_service_pb2.CreateOrgResponse)
        return wire.org(answer.org)

    async def rename(self, org_id: str, name: str) -> Org:
        """Give an org another name."""
        request = org_service_pb2.RenameOrgRequest(org_id=org_id, name=name)
        return wire.org(
            (await self._call(f"{_ORGS}/RenameOrg", request, org_service_pb2.RenameOrgResponse, ATTEMPTS)).org
        )

    async def delete(self, org_id: str) -> Org:
        """Close an org; until its `deletes_at` it can be restored."""
        request = org_service_pb2.DeleteOrgRequest(org_id=org_id)
        return wire.org(
            (await self._call(f"{_ORGS}/DeleteOrg", request, org_service_pb2.DeleteOrgResponse, ATTEMPTS)).org
        )

    async def restore(self, org_id: str) -> Org:
        """Open a deleted org again."""
        request = org_service_pb2.RestoreOrgRequest(org_id=org_id)
        return wire.org(
            (await self._call(f"{_ORGS}/RestoreOrg", request, org_service_pb2.RestoreOrgResponse, ATTEMPTS)).org
        )

    async def members(self, org_id: str, *, page_size: int = 0, page_token: str = "") -> MemberPage:
        """A page of an org's members."""
        request = member_service_pb2.ListMembersRequest(org_id=org_id, page_size=page_size, page_token=page_token)
        return wire.member_page(
            await self._call(f"{_MEMBERS}/ListMembers", request, member_service_pb2.ListMembersResponse, ATTEMPTS)
        )

    async def set_role(self, org_id: str, user_id: str, role: str) -> Member:
        """Give a member another role. Raises Refusal `invalid_enum`, `last_owner`, `org_scope_denied`."""
        request = member_service_pb2.SetMemberRoleRequest(org_id=org_id, user_id=user_id, role=wire.role_number(role))
        answer = await self._call(f"{_MEMBERS}/SetMemberRole", request, member_service_pb2.SetMemberRoleResponse)
        return wire.member(answer.member)

    async def remove(self, org_id: str, user_id: str) -> None:
        """End somebody's membership."""
        request = member_service_pb2.RemoveMemberRequest(org_id=org_id, user_id=user_id)
        await self._call(f"{_MEMBERS}/RemoveMember", request, member_service_pb2.RemoveMemberResponse)

    async def leave(self, org_id: str) -> None:
        """End the caller's own membership. Raises Refusal `last_owner`, `personal_org`."""
        request = member_service_pb2.LeaveOrgRequest(org_id=org_id)
        await self._call(f"{_MEMBERS}/LeaveOrg", request, member_service_pb2.LeaveOrgResponse)

    async def transfer(self, org_id: str, user_id: str) -> Member:
        """Make a member the owner in place of the caller."""
        request = member_service_pb2.TransferOwnershipRequest(org_id=org_id, user_id=user_id)
        response = member_service_pb2.TransferOwnershipResponse
        return wire.member((await self._call(f"{_MEMBERS}/TransferOwnership", request, response)).owner)

    async def invite(self, org_id: str, email: str, role: str) -> Invitation:
        """Invite an address. Each call sends a mail."""
        request = invitation_service_pb2.CreateInvitationRequest(
            org_id=org_id, email=email, role=wire.role_number(role)
        )
        response = invitation_service_pb2.CreateInvitationResponse
        return wire.invitation((await self._call(f"{_INVITATIONS}/CreateInvitation", request, response)).invitation)

    async def invitations(self, org_id: str) -> tuple[Invitation, ...]:
        """Return the open invitations to an org, newest first."""
        request = invitation_service_pb2.ListInvitationsRequest(org_id=org_id)
        response = invitation_service_pb2.ListInvitationsResponse
        return tuple(
            map(
                wire.invitation,
                (await self._call(f"{_INVITATIONS}/ListInvitations", request, response, ATTEMPTS)).invitations,
            )
        )

    async def resend(self, org_id: str, invitation_id: str) -> Invitation:
        """Send the mail of an invitation once more."""
        request = invitation_service_pb2.ResendInvitationRequest(org_id=org_id, invitation_id=invitation_id)
        response = invitation_service_pb2.ResendInvitationResponse
        return wire.invitation((await self._call(f"{_INVITATIONS}/ResendInvitation", request, response)).invitation)

    async def revoke(self, org_id: str, invitation_id: str) -> None:
        """Withdraw an invitation."""
        request = invitation_service_pb2.RevokeInvitationRequest(org_id=org_id, invitation_id=invitation_id)
        await self._call(f"{_INVITATIONS}/RevokeInvitation", request, invitation_service_pb2.RevokeInvitationResponse)

    async def own_invitations(self) -> tuple[Invitation, ...]:
        """Return the open invitations to the caller's address, newest first."""
        request = invitation_service_pb2.ListOwnInvitationsRequest()
        response = invitation_service_pb2.ListOwnInvitationsResponse
        answer = await self._call(f"{_INVITATIONS}/ListOwnInvitations", request, response, ATTEMPTS)
        return tuple(map(wire.invitation, answer.invitations))

    async def accept(self, invitation_id: str) -> Joined:
        """Accept an invitation and become a member."""
        request = invitation_service_pb2.AcceptInvitationRequest(invitation_id=invitation_id)
        response = invitation_service_pb2.AcceptInvitationResponse
        return wire.joined(await self._call(f"{_INVITATIONS}/AcceptInvitation", request, response))

    async def decline(self, invitation_id: str) -> None:
        """Decline an invitation."""
        request = invitation_service_pb2.DeclineInvitationRequest(invitation_id=invitation_id)
        await self._call(f"{_INVITATIONS}/DeclineInvitation", request, invitation_service_pb2.DeclineInvitationResponse)
