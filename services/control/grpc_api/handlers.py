"""What the control services do with a message: one handler a method, the same for the gRPC door and the HTTP edge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from openagents.control.v1 import auth_service_pb2 as auth_pb2
from openagents.control.v1 import org_service_pb2 as org_pb2
from openagents.control.v1 import service_account_service_pb2 as accounts_pb2
from openagents.control.v1 import session_service_pb2 as session_pb2
from openagents.control.v1 import sync_token_service_pb2 as sync_pb2
from services.control.app.account import Account
from services.control.app.call import Call
from services.control.app.service_accounts import ServiceAccountCases, Use
from services.control.app.sign_in import SignIn
from services.control.app.sync_tokens import SyncTokens
from services.control.grpc_api.mapping import (
    grant_to_wire,
    org_to_wire,
    principal_to_wire,
    service_account_to_wire,
    session_to_wire,
    timestamp,
    token_expiry,
    tokens_to_wire,
)

Handler = Callable[[Any, Call], Awaitable[Message]]
"""Takes a valid request of its method."""

_USES = {accounts_pb2.TOKEN_USE_WORKER: Use.WORKER, accounts_pb2.TOKEN_USE_EDGE: Use.EDGE}


@dataclass(frozen=True)
class PublicAddresses:
    """Where clients find the other doors."""

    khala_url: str
    runtime_grpc_address: str


@dataclass(frozen=True)
class Handlers:
    """The use cases behind the control services."""

    sign_in: SignIn
    account: Account
    service_accounts: ServiceAccountCases
    sync_tokens: SyncTokens
    addresses: PublicAddresses

    def table(self) -> Mapping[str, Handler]:
        """Method ("package.Service/Method") -> handler."""
        by_service: dict[str, tuple[Handler, ...]] = {
            "AuthService": (self.StartChallenge, self.VerifyChallenge, self.RefreshSession),
            "SessionService": (self.GetCaller, self.ListSessions, self.RevokeSession),
            "OrgService": (self.ListOrgs,),
            "ServiceAccountService": (
                self.CreateServiceAccount,
                self.ListServiceAccounts,
                self.RevokeServiceAccount,
                self.ExchangeKey,
            ),
            "SyncTokenService": (self.MintSyncToken,),
        }
        return {
            f"openagents.control.v1.{service}/{handler.__name__}": handler
            for service, handlers in by_service.items()
            for handler in handlers
        }

    async def StartChallenge(self, request: auth_pb2.StartChallengeRequest, call: Call) -> Message:
        """AuthService."""
        started = await self.sign_in.start(request.email, request.device_id, call.origin)
        return auth_pb2.StartChallengeResponse(
            challenge_id=started.challenge_id,
            expire_time=timestamp(started.expires_at),
            resend_after_ms=round(started.resend_after.total_seconds() * 1000),
            email=started.email,
        )

    async def VerifyChallenge(self, request: auth_pb2.VerifyChallengeRequest, call: Call) -> Message:
        """AuthService."""
        signed_in = await self.sign_in.verify(request.challenge_id, request.code, request.device_id, call.origin)
        return auth_pb2.VerifyChallengeResponse(
            tokens=tokens_to_wire(signed_in.tokens),
            user_id=signed_in.user.user_id,
            org_id=signed_in.session.org_id,
            session_id=signed_in.session.session_id,
            new_user=signed_in.new_user,
        )

    async def RefreshSession(self, request: auth_pb2.RefreshSessionRequest, call: Call) -> Message:
        """AuthService."""
        tokens = await self.account.refresh(request.refresh_token, request.device_id, call.origin)
        return auth_pb2.RefreshSessionResponse(tokens=tokens_to_wire(tokens))

    async def GetCaller(self, _: session_pb2.GetCallerRequest, call: Call) -> Message:
        """SessionService."""
        view = await self.account.caller(call.caller)
        principal = principal_to_wire(view.principal)
        return session_pb2.GetCallerResponse(principal=principal, email=view.email, khala_url=self.addresses.khala_url)

    async def ListSessions(self, _: session_pb2.ListSessionsRequest, call: Call) -> Message:
        """SessionService."""
        sessions = await self.account.sessions(call.caller)
        current = call.caller.session_id
        return session_pb2.ListSessionsResponse(sessions=[session_to_wire(session, current) for session in sessions])

    async def RevokeSession(self, request: session_pb2.RevokeSessionRequest, call: Call) -> Message:
        """SessionService."""
        await self.account.revoke_session(call.caller, request.session_id, call.origin)
        return session_pb2.RevokeSessionResponse()

    async def ListOrgs(self, _: org_pb2.ListOrgsRequest, call: Call) -> Message:
        """OrgService."""
        return org_pb2.ListOrgsResponse(orgs=[org_to_wire(org) for org in await self.account.orgs(call.caller)])

    async def CreateServiceAccount(self, request: accounts_pb2.CreateServiceAccountRequest, call: Call) -> Message:
        """ServiceAccountService."""
        account, key = await self.service_accounts.create(call.caller, request.name, call.origin)
        wire = service_account_to_wire(account)
        return accounts_pb2.CreateServiceAccountResponse(service_account=wire, api_key=key)

    async def ListServiceAccounts(self, _: accounts_pb2.ListServiceAccountsRequest, call: Call) -> Message:
        """ServiceAccountService."""
        accounts = await self.service_accounts.list(call.caller)
        wire = [service_account_to_wire(account) for account in accounts]
        return accounts_pb2.ListServiceAccountsResponse(service_accounts=wire)

    async def RevokeServiceAccount(self, request: accounts_pb2.RevokeServiceAccountRequest, call: Call) -> Message:
        """ServiceAccountService."""
        await self.service_accounts.revoke(call.caller, request.service_account_id, call.origin)
        return accounts_pb2.RevokeServiceAccountResponse()

    async def ExchangeKey(self, request: accounts_pb2.ExchangeKeyRequest, call: Call) -> Message:
        """ServiceAccountService."""
        exchanged = await self.service_accounts.exchange(request.api_key, _USES[request.use], call.origin)
        return accounts_pb2.ExchangeKeyResponse(
            token=exchanged.token,
            expire_time=token_expiry(exchanged.expires_at),
            runtime_grpc_address=self.addresses.runtime_grpc_address if exchanged.use is Use.WORKER else "",
        )

    async def MintSyncToken(self, request: sync_pb2.MintSyncTokenRequest, call: Call) -> Message:
        """SyncTokenService."""
        minted = await self.sync_tokens.mint(
            call.caller, list(request.topics), request.ttl_seconds, request.surface, call.origin
        )
        return sync_pb2.MintSyncTokenResponse(
            token=minted.token,
            expire_time=token_expiry(minted.expires_at),
            grants=[grant_to_wire(grant) for grant in minted.grants],
            khala_url=self.addresses.khala_url,
        )
