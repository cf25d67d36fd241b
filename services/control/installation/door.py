"""InstallationSessionService and InstallationOrgService: for operators, on the internal port."""

from __future__ import annotations

import hashlib
from typing import Any

from oa_platform.telemetry.context import current_request_id
from oa_wire.page_tokens import decode_page_token, encode_page_token
from openagents.control.v1 import installation_org_service_pb2 as org_pb
from openagents.control.v1 import installation_session_service_pb2 as session_pb
from openagents.control.v1 import member_service_pb2, session_service_pb2
from openagents.control.v1.installation_org_service_pb2_grpc import InstallationOrgServiceServicer
from openagents.control.v1.installation_session_service_pb2_grpc import InstallationSessionServiceServicer
from openagents.control.v1.org_service_pb2 import OrgRole
from services.control.audit.domain import Origin
from services.control.calls.app import timestamp
from services.control.installation.app import InstallationOrgs, InstallationSessions
from services.control.installation.domain import InstallationOrg
from services.control.members.domain import Member
from services.control.orgs.domain import role_name
from services.control.sessions.domain import Session


class InstallationSessionApi(InstallationSessionServiceServicer):
    """The methods of InstallationSessionService."""

    def __init__(self, sessions: InstallationSessions) -> None:
        self._sessions = sessions

    async def ListInstallationSessions(
        self, request: session_pb.ListInstallationSessionsRequest, context: Any
    ) -> session_pb.ListInstallationSessionsResponse:
        """Return a person's sessions."""
        user_id, sessions = await self._sessions.list(request.person)
        return session_pb.ListInstallationSessionsResponse(user_id=user_id, sessions=map(_session, sessions))

    async def RevokeInstallationSessions(
        self, request: session_pb.RevokeInstallationSessionsRequest, context: Any
    ) -> session_pb.RevokeInstallationSessionsResponse:
        """End sessions of a person."""
        user_id, ended = await self._sessions.revoke(
            request.person, request.session_id, Origin.of_operator(current_request_id())
        )
        return session_pb.RevokeInstallationSessionsResponse(user_id=user_id, session_ids=ended)


class InstallationOrgApi(InstallationOrgServiceServicer):
    """The methods of InstallationOrgService."""

    def __init__(self, orgs: InstallationOrgs) -> None:
        self._orgs = orgs

    async def ListInstallationOrgs(
        self, request: org_pb.ListInstallationOrgsRequest, context: Any
    ) -> org_pb.ListInstallationOrgsResponse:
        """Return a page of orgs."""
        digest = hashlib.sha256(f"installation orgs:{request.deleted}:{request.person}".encode()).digest()
        after = decode_page_token(request.page_token, digest)
        orgs, last = await self._orgs.page(request.person, request.page_size, after, deleted=request.deleted)
        return org_pb.ListInstallationOrgsResponse(
            orgs=map(_org, orgs), next_page_token=encode_page_token(last, digest)
        )

    async def GetInstallationOrg(
        self, request: org_pb.GetInstallationOrgRequest, context: Any
    ) -> org_pb.GetInstallationOrgResponse:
        """Return an org and its members."""
        org, members = await self._orgs.get(request.org_id)
        return org_pb.GetInstallationOrgResponse(org=_org(org), members=map(_member, members))

    async def RestoreInstallationOrg(
        self, request: org_pb.RestoreInstallationOrgRequest, context: Any
    ) -> org_pb.RestoreInstallationOrgResponse:
        """Restore an org."""
        return org_pb.RestoreInstallationOrgResponse(
            org=_org(await self._orgs.restore(request.org_id, Origin.of_operator(current_request_id())))
        )

    async def SetInstallationOrgOwner(
        self, request: org_pb.SetInstallationOrgOwnerRequest, context: Any
    ) -> org_pb.SetInstallationOrgOwnerResponse:
        """Give an org an owner."""
        origin = Origin.of_operator(current_request_id())
        owner = await self._orgs.set_owner(request.org_id, request.person, origin)
        return org_pb.SetInstallationOrgOwnerResponse(owner=_member(owner))


def _org(found: InstallationOrg) -> org_pb.InstallationOrg:
    org = found.org
    return org_pb.InstallationOrg(
        org_id=org.org_id,
        name=org.name,
        personal=org.personal,
        create_time=timestamp(org.created_at),
        delete_time=timestamp(org.delete_at) if org.delete_at else None,
        end_time=timestamp(found.gone_at) if found.gone_at else None,
        members=found.members,
        service_accounts=found.service_accounts,
    )


def _member(member: Member) -> member_service_pb2.Member:
    return member_service_pb2.Member(
        user_id=member.user_id,
        email=member.email,
        role=OrgRole.Value(role_name(member.role)),
        create_time=timestamp(member.joined_at),
    )


def _session(session: Session) -> session_service_pb2.Session:
    return session_service_pb2.Session(
        session_id=session.session_id,
        device_id=session.device_id,
        create_time=timestamp(session.created_at),
        refresh_time=timestamp(session.refreshed_at),
        revoke_time=timestamp(session.revoked_at) if session.revoked_at else None,
        org_id=session.org_id,
        revoke_reason=session.revoke_reason or "",
    )
