"""SessionService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.common.v1 import principal_pb2
from openagents.control.v1 import session_service_pb2 as session_pb2
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.orgs.app import Orgs
from services.control.policy.domain import StandingPrincipal
from services.control.sessions.app import Sessions
from services.control.sessions.domain import Session
from services.control.tokens.domain import kind_name


class SessionApi:
    """The methods of SessionService. `khala_url` is the URL at which clients open the WebSocket."""

    def __init__(self, sessions: Sessions, orgs: Orgs, khala_url: str) -> None:
        self._sessions = sessions
        self._orgs = orgs
        self._khala_url = khala_url

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of(
            "SessionService", self.GetCaller, self.ListSessions, self.RevokeSession, self.RevokeSessions, self.SwitchOrg
        )

    async def GetCaller(self, _: session_pb2.GetCallerRequest, call: Call) -> Message:
        """Return who the caller is."""
        return session_pb2.GetCallerResponse(
            principal=_principal(call.caller),
            email=await self._orgs.email(call.caller),
            khala_url=self._khala_url,
        )

    async def ListSessions(self, _: session_pb2.ListSessionsRequest, call: Call) -> Message:
        """List the caller's sessions."""
        sessions = await self._sessions.list(call.caller)
        current = call.caller.session_id
        return session_pb2.ListSessionsResponse(sessions=[_session(session, current) for session in sessions])

    async def RevokeSession(self, request: session_pb2.RevokeSessionRequest, call: Call) -> Message:
        """End a session."""
        await self._sessions.revoke(call.caller, request.session_id, call.origin)
        return session_pb2.RevokeSessionResponse()

    async def RevokeSessions(self, request: session_pb2.RevokeSessionsRequest, call: Call) -> Message:
        """End several sessions."""
        ended = await self._sessions.revoke_many(
            call.caller, request.device_id, call.origin, keep_current=request.keep_current
        )
        return session_pb2.RevokeSessionsResponse(session_ids=ended)

    async def SwitchOrg(self, request: session_pb2.SwitchOrgRequest, call: Call) -> Message:
        """Let the session act in another org."""
        await self._sessions.switch(call.caller, request.org_id, call.origin)
        return session_pb2.SwitchOrgResponse()


def _principal(principal: StandingPrincipal) -> principal_pb2.Principal:
    """The principal with the scopes that it may use now."""
    return principal_pb2.Principal(
        kind=principal_pb2.PrincipalKind.Value(kind_name(principal.kind)),
        subject=principal.subject,
        org_id=principal.org_id,
        scopes=sorted(principal.effective_scopes),
        session_id=principal.session_id,
        device_id=principal.device_id,
    )


def _session(session: Session, current_id: str) -> session_pb2.Session:
    return session_pb2.Session(
        session_id=session.session_id,
        device_id=session.device_id,
        create_time=timestamp(session.created_at),
        refresh_time=timestamp(session.refreshed_at),
        sign_in_time=timestamp(session.signed_in_at),
        current=session.session_id == current_id,
        revoke_time=timestamp(session.revoked_at) if session.revoked_at else None,
        org_id=session.org_id,
        revoke_reason=session.revoke_reason or "",
    )
