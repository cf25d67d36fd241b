"""ServiceAccountService."""

from __future__ import annotations

from google.protobuf.message import Message

from openagents.control.v1 import service_account_service_pb2 as accounts_pb2
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.service_accounts.app import ServiceAccounts
from services.control.service_accounts.domain import ServiceAccount, Use

_USES = {accounts_pb2.TOKEN_USE_WORKER: Use.WORKER, accounts_pb2.TOKEN_USE_EDGE: Use.EDGE}


class ServiceAccountApi:
    """The methods of ServiceAccountService. `runtime_address` is where workers attach."""

    def __init__(self, accounts: ServiceAccounts, runtime_address: str) -> None:
        self._accounts = accounts
        self._runtime_address = runtime_address

    def handlers(self) -> Handlers:
        """One handler a method."""
        return handlers_of(
            "ServiceAccountService",
            self.CreateServiceAccount,
            self.ListServiceAccounts,
            self.RevokeServiceAccount,
            self.ExchangeKey,
        )

    async def CreateServiceAccount(self, request: accounts_pb2.CreateServiceAccountRequest, call: Call) -> Message:
        """A new account with its key."""
        account, key = await self._accounts.create(call.caller, request.name, call.origin)
        return accounts_pb2.CreateServiceAccountResponse(service_account=_account(account), api_key=key)

    async def ListServiceAccounts(self, _: accounts_pb2.ListServiceAccountsRequest, call: Call) -> Message:
        """The accounts of the caller's org."""
        accounts = await self._accounts.list(call.caller)
        return accounts_pb2.ListServiceAccountsResponse(service_accounts=[_account(account) for account in accounts])

    async def RevokeServiceAccount(self, request: accounts_pb2.RevokeServiceAccountRequest, call: Call) -> Message:
        """The account ends."""
        await self._accounts.revoke(call.caller, request.service_account_id, call.origin)
        return accounts_pb2.RevokeServiceAccountResponse()

    async def ExchangeKey(self, request: accounts_pb2.ExchangeKeyRequest, call: Call) -> Message:
        """A token for a key."""
        use = _USES[request.use]
        issued = await self._accounts.exchange(request.api_key, use, call.origin)
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
    )
