"""AuthService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import auth_service_pb2 as auth_pb2
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.sessions.app import Sessions, SessionTokens
from services.control.sign_in.app import SignIn


class AuthApi:
    """The methods of AuthService, which need no access token."""

    def __init__(self, sign_in: SignIn, sessions: Sessions) -> None:
        self._sign_in = sign_in
        self._sessions = sessions

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of("AuthService", self.StartChallenge, self.VerifyChallenge, self.RefreshSession)

    async def StartChallenge(self, request: auth_pb2.StartChallengeRequest, call: Call) -> Message:
        """Send a code."""
        started = await self._sign_in.start(request.email, request.device_id, call.origin)
        return auth_pb2.StartChallengeResponse(
            challenge_id=started.challenge_id,
            expire_time=timestamp(started.expires_at),
            resend_after_ms=round(started.resend_after.total_seconds() * 1000),
            email=started.email,
        )

    async def VerifyChallenge(self, request: auth_pb2.VerifyChallengeRequest, call: Call) -> Message:
        """Exchange a code for a session."""
        signed_in = await self._sign_in.verify(
            request.challenge_id, request.code, request.device_id, call.origin, request.refresh_token
        )
        return auth_pb2.VerifyChallengeResponse(
            tokens=_tokens(signed_in.tokens),
            user_id=signed_in.user.user_id,
            org_id=signed_in.session.org_id,
            session_id=signed_in.session.session_id,
            new_user=signed_in.new_user,
        )

    async def RefreshSession(self, request: auth_pb2.RefreshSessionRequest, call: Call) -> Message:
        """New tokens for a refresh token."""
        tokens = await self._sessions.refresh(request.refresh_token, request.device_id, call.origin)
        return auth_pb2.RefreshSessionResponse(tokens=_tokens(tokens))


def _tokens(tokens: SessionTokens) -> auth_pb2.SessionTokens:
    return auth_pb2.SessionTokens(
        access_token=tokens.access_token,
        access_expire_time=timestamp(tokens.access_expires_at),
        refresh_token=tokens.refresh_token,
        org_id=tokens.org_id,
    )
