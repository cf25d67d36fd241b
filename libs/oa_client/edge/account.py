"""The end of the caller's account."""

from __future__ import annotations

from oa_client.core.accounts import AccountDeletion, account_deletion
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge
from openagents.control.v1 import account_service_pb2

_SERVICE = "openagents.control.v1.AccountService"


class Account:
    """The account of a person who is signed in."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def deletion(self) -> AccountDeletion:
        """Return what the deletion of the account would end. Changes nothing."""
        method, request = f"{_SERVICE}/GetAccountDeletion", account_service_pb2.GetAccountDeletionRequest()
        response = account_service_pb2.GetAccountDeletionResponse
        answer = await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS)
        return account_deletion(answer.deletion)

    async def delete(self, user_id: str) -> AccountDeletion:
        """Delete the account for good. `user_id` is its own id, as a confirmation. The call is sent once: a repetition
        is refused, because the session is gone.

        Raises Refusal `last_owner` with `org_ids`, the orgs that would have no owner; `sign_in_too_old`, `not_found`.
        """
        request = account_service_pb2.DeleteAccountRequest(user_id=user_id)
        response = account_service_pb2.DeleteAccountResponse
        answer = await self._edge.call(f"{_SERVICE}/DeleteAccount", request, response, self._tokens)
        return account_deletion(answer.deletion)
