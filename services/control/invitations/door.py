"""InvitationService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import invitation_service_pb2 as pb
from openagents.control.v1.org_service_pb2 import OrgRole
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.invitations.app import Invitations
from services.control.invitations.domain.invitation import Shown
from services.control.orgs.domain import role_name, role_named


class InvitationApi:
    """The methods of InvitationService."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    def handlers(self) -> Handlers:
        """One handler per method."""
        return handlers_of(
            "InvitationService",
            self.CreateInvitation,
            self.ListInvitations,
            self.ResendInvitation,
            self.RevokeInvitation,
            self.ListOwnInvitations,
            self.AcceptInvitation,
            self.DeclineInvitation,
        )

    async def CreateInvitation(self, request: pb.CreateInvitationRequest, call: Call) -> Message:
        """Invite an address."""
        role = role_named(OrgRole.Name(request.role))
        shown = await self._invitations.create(call.caller, request.org_id, request.email, role, call.origin)
        return pb.CreateInvitationResponse(invitation=_message(shown))

    async def ListInvitations(self, request: pb.ListInvitationsRequest, call: Call) -> Message:
        """Return an org's open invitations."""
        invitations = await self._invitations.list(call.caller, request.org_id)
        return pb.ListInvitationsResponse(invitations=map(_message, invitations))

    async def ResendInvitation(self, request: pb.ResendInvitationRequest, call: Call) -> Message:
        """Send the mail once more."""
        shown = await self._invitations.resend(call.caller, request.org_id, request.invitation_id, call.origin)
        return pb.ResendInvitationResponse(invitation=_message(shown))

    async def RevokeInvitation(self, request: pb.RevokeInvitationRequest, call: Call) -> Message:
        """Revoke an invitation."""
        await self._invitations.revoke(call.caller, request.org_id, request.invitation_id, call.origin)
        return pb.RevokeInvitationResponse()

    async def ListOwnInvitations(self, _: pb.ListOwnInvitationsRequest, call: Call) -> Message:
        """Return the open invitations to the caller's address."""
        return pb.ListOwnInvitationsResponse(invitations=map(_message, await self._invitations.own(call.caller)))

    async def AcceptInvitation(self, request: pb.AcceptInvitationRequest, call: Call) -> Message:
        """Make the caller a member."""
        org_id, role = await self._invitations.accept(call.caller, request.invitation_id, call.origin)
        return pb.AcceptInvitationResponse(org_id=org_id, role=OrgRole.Value(role_name(role)))

    async def DeclineInvitation(self, request: pb.DeclineInvitationRequest, call: Call) -> Message:
        """Decline an invitation to the caller's address."""
        await self._invitations.decline(call.caller, request.invitation_id, call.origin)
        return pb.DeclineInvitationResponse()


def _message(shown: Shown) -> pb.Invitation:
    invitation = shown.invitation
    return pb.Invitation(
        invitation_id=invitation.invitation_id,
        org_id=invitation.org_id,
        org_name=shown.org_name,
        email=invitation.email,
        role=OrgRole.Value(role_name(invitation.role)),
        inviter_email=shown.inviter_email,
        create_time=timestamp(invitation.created_at),
        expire_time=timestamp(invitation.expires_at),
    )
