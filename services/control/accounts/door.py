"""AccountService, and InstallationAccountService for operators, on the internal port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from oa_platform.telemetry.context import current_request_id
from openagents.control.v1 import account_service_pb2 as pb
from openagents.control.v1 import installation_account_service_pb2 as operator_pb
from openagents.control.v1.installation_account_service_pb2_grpc import InstallationAccountServiceServicer
from services.control.accounts.app import Accounts
from services.control.accounts.domain import Deletion
from services.control.audit.domain import Origin
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.orgs.domain import Org


class AccountApi:
    """The methods of AccountService."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of("AccountService", self.GetAccountDeletion, self.DeleteAccount)

    async def GetAccountDeletion(self, _: pb.GetAccountDeletionRequest, call: Call) -> Message:
        """Return what the deletion of the caller's account would end."""
        return pb.GetAccountDeletionResponse(deletion=_deletion(await self._accounts.own_deletion(call.caller)))

    async def DeleteAccount(self, request: pb.DeleteAccountRequest, call: Call) -> Message:
        """Delete the caller's account."""
        ended = await self._accounts.delete_own(call.caller, request.user_id, call.origin)
        return pb.DeleteAccountResponse(deletion=_deletion(ended))


class InstallationAccountApi(InstallationAccountServiceServicer):
    """The methods of InstallationAccountService."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def GetInstallationAccountDeletion(
        self, request: operator_pb.GetInstallationAccountDeletionRequest, context: Any
    ) -> operator_pb.GetInstallationAccountDeletionResponse:
        """Return what the deletion of an account would end."""
        found = await self._accounts.deletion(request.person)
        return operator_pb.GetInstallationAccountDeletionResponse(deletion=_deletion(found))

    async def DeleteInstallationAccount(
        self, request: operator_pb.DeleteInstallationAccountRequest, context: Any
    ) -> operator_pb.DeleteInstallationAccountResponse:
        """Delete an account."""
        ended = await self._accounts.delete(request.person, Origin.of_operator(current_request_id()))
        return operator_pb.DeleteInstallationAccountResponse(deletion=_deletion(ended))


def _deletion(deletion: Deletion) -> pb.AccountDeletion:
    account = deletion.account
    return pb.AccountDeletion(
        user_id=account.subject,
        email=account.name,
        org_id=account.org_id,
        ending_orgs=_orgs(deletion.ending),
        left_orgs=_orgs(deletion.left),
        blocking_orgs=_orgs(deletion.blocking),
        live_sessions=account.live_sessions,
        live_keys=account.live_keys,
        delete_time=timestamp(account.deleted_at) if account.deleted_at else None,
    )


def _orgs(orgs: Sequence[Org]) -> list[pb.AccountOrg]:
    return [pb.AccountOrg(org_id=org.org_id, name=org.name, personal=org.personal) for org in orgs]
