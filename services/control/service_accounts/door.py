"""ServiceAccountService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import service_account_service_pb2 as accounts_pb2
from services.control.api_keys.app.keys import ApiKeys, Wanted
from services.control.api_keys.domain import Use
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.service_accounts.app import ServiceAccounts
from services.control.service_accounts.domain import ServiceAccount

_USES = {accounts_pb2.TOKEN_USE_WORKER: Use.WORKER, accounts_pb2.TOKEN_USE_EDGE: Use.EDGE}


class ServiceAccountApi:
    """The methods of ServiceAccountService. `runtime_address` is the address at which workers attach."""

    def __init__(self, accounts: ServiceAccounts, api_keys: ApiKeys, runtime_address: str) -> None:
        self._accounts = accounts
        self._api_keys = api_keys
        self._runtime_address = runtime_address

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of(
            "ServiceAccountService",
            self.CreateServiceAccount,
            self.ListServiceAccounts,
            self.RevokeServiceAccount,
            self.ExchangeKey,
        )

    async def CreateServiceAccount(self, request: accounts_pb2.CreateServiceAccountRequest, call: Call) -> Message:
        """Create an account with its first key."""
        wanted = Wanted(request.name, tuple(request.scopes), request.ttl_seconds)
        account, new = await self._accounts.create(call.caller, wanted, call.origin)
        return accounts_pb2.CreateServiceAccountResponse(
            service_account=_account(account), api_key=new.text, api_key_id=new.key.api_key_id
        )

    async def ListServiceAccounts(self, _: accounts_pb2.ListServiceAccountsRequest, call: Call) -> Message:
        """List the accounts of the caller's org."""
        accounts = await self._accounts.list(call.caller)
        return accounts_pb2.ListServiceAccountsResponse(service_accounts=[_account(account) for account in accounts])

    async def RevokeServiceAccount(self, request: accounts_pb2.RevokeServiceAccountRequest, call: Call) -> Message:
        """End an account."""
        await self._accounts.revoke(call.caller, request.service_account_id, call.origin)
        return accounts_pb2.RevokeServiceAccountResponse()

    async def ExchangeKey(self, request: accounts_pb2.ExchangeKeyRequest, call: Call) -> Message:
        """Exchange a key for a token."""
        use = _USES[request.use]
        issued = await self._api_keys.exchange(request.api_key, use, call.origin)
        return accounts_pb2.ExchangeKeyResponse(
            token=issued.token,
            expire_time=timestamp(issued.expires_at),
            runtime_grpc_address=self._runtime_address if use is Use.WORKER else "",
        )


def _account(account: ServiceAccount) -> accounts_pb2.ServiceAccount:
    return accounts_pb2.ServiceAccount(
        service_account_id=account.service_account_id,
        org_id=account.org_id,
        name=account.name,
        create_time=timestamp(account.created_at),
        revoke_time=timestamp(account.revoked_at) if account.revoked_at else None,
        block_time=timestamp(account.blocked_at) if account.blocked_at else None,
    )
