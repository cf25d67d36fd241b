"""Orgs, their members and invitations as commands return them, and the mapping from the contracts' messages."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from openagents.control.v1 import invitation_service_pb2, member_service_pb2, org_service_pb2

_PREFIX = "ORG_ROLE_"
ROLES = tuple(name.removeprefix(_PREFIX).lower() for name in org_service_pb2.OrgRole.keys()[1:])
"""All roles of members, from the most powerful to the least."""


@dataclass(frozen=True)
class Org:
    """An org as one of its members sees it. `role`: one of ROLES, or the number of a role of a newer service.

    Times are RFC 3339. `deletes_at`: when the org will be gone; empty unless it was deleted.
    """

    org_id: str
    name: str
    personal: bool
    role: str
    created_at: str
    deletes_at: str
    document: JsonDocument


@dataclass(frozen=True)
class Member:
    """A person in an org."""

    user_id: str
    email: str
    role: str
    joined_at: str
    document: JsonDocument


@dataclass(frozen=True)
class MemberPage:
    """A page of members; `next_page_token` is empty on the last page."""

    members: tuple[Member, ...]
    next_page_token: str


@dataclass(frozen=True)
class Invitation:
    """An open invitation. `inviter` is the address of its author; empty once that person is no longer a member."""

    invitation_id: str
    org_id: str
    org_name: str
    email: str
    role: str
    inviter: str
    created_at: str
    expires_at: str
    document: JsonDocument


@dataclass(frozen=True)
class Joined:
    """The org that somebody has become a member of."""

    org_id: str
    role: str
    document: JsonDocument


def role_number(role: str) -> org_service_pb2.OrgRole.ValueType:
    """Return the contract's number of a role. Raises Refusal `invalid_enum` for a word that is not in ROLES."""
    if role not in ROLES:
        raise Refusal("invalid_enum", f"{role!r} is no role; give one of {', '.join(ROLES)}", field="role")
    return org_service_pb2.OrgRole.Value(_PREFIX + role.upper())


def org(message: org_service_pb2.Org) -> Org:
    """An org."""
    return Org(
        org_id=message.org_id,
        name=message.name,
        personal=message.personal,
        role=_role(message.role),
        created_at=_time(message.create_time),
        deletes_at=_time(message.delete_time),
        document=document(message),
    )


def member(message: member_service_pb2.Member) -> Member:
    """A member."""
    return Member(message.user_id, message.email, _role(message.role), _time(message.create_time), document(message))


def member_page(message: member_service_pb2.ListMembersResponse) -> MemberPage:
    """A page of members."""
    return MemberPage(tuple(map(member, message.members)), message.next_page_token)


def invitation(message: invitation_service_pb2.Invitation) -> Invitation:
    """An invitation."""
    return Invitation(
        invitation_id=message.invitation_id,
        org_id=message.org_id,
        org_name=message.org_name,
        email=message.email,
        role=_role(message.role),
        inviter=message.inviter_email,
        created_at=_time(message.create_time),
        expires_at=_time(message.expire_time),
        document=document(message),
    )


def joined(message: invitation_service_pb2.AcceptInvitationResponse) -> Joined:
    """The org that was joined."""
    return Joined(message.org_id, _role(message.role), document(message))


def _role(number: org_service_pb2.OrgRole.ValueType) -> str:
    known = org_service_pb2.OrgRole
    return known.Name(number).removeprefix(_PREFIX).lower() if number in known.values() else str(number)


def _time(stamp: Timestamp) -> str:
    return stamp.ToJsonString() if stamp.seconds or stamp.nanos else ""
