"""ProviderSignInService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import auth_service_pb2 as auth_pb2
from openagents.control.v1 import provider_sign_in_service_pb2 as pb
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.provider_sign_in.app import ProviderSignIn


class ProviderSignInApi:
    """The methods of ProviderSignInService, which need no access token."""

    def __init__(self, sign_in: ProviderSignIn) -> None:
        self._sign_in = sign_in

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of(
            "ProviderSignInService", self.ListProviders, self.StartProviderSignIn, self.FinishProviderSignIn
        )

    async def ListProviders(self, _: pb.ListProvidersRequest, call: Call) -> Message:
        """List the providers of this installation."""
        providers = [pb.IdentityProvider(name=name, label=label) for name, label in self._sign_in.list()]
        return pb.ListProvidersResponse(providers=providers, codes_off=not self._sign_in.codes_too)

    async def StartProviderSignIn(self, request: pb.StartProviderSignInRequest, call: Call) -> Message:
        """Begin a sign-in, and return the page to open."""
        started = await self._sign_in.start(request.provider, request.device_id, request.redirect_uri, call.origin)
        return pb.StartProviderSignInResponse(
            sign_in_id=started.begun.sign_in_id,
            authorization_url=started.authorization_url,
            state=started.state,
            expire_time=timestamp(started.begun.expires_at),
        )

    async def FinishProviderSignIn(self, request: pb.FinishProviderSignInRequest, call: Call) -> Message:
        """Exchange a provider's code for a session."""
        signed_in = await self._sign_in.finish(
            request.sign_in_id, request.device_id, request.state, request.code, call.origin, request.refresh_token
        )
        tokens = signed_in.tokens
        return pb.FinishProviderSignInResponse(
            tokens=auth_pb2.SessionTokens(
                access_token=tokens.access_token,
                access_expire_time=timestamp(tokens.access_expires_at),
                refresh_token=tokens.refresh_token,
                org_id=tokens.org_id,
            ),
            user_id=signed_in.user.user_id,
            org_id=signed_in.session.org_id,
            session_id=signed_in.session.session_id,
            new_user=signed_in.new_user,
            email=signed_in.user.email,
        )
