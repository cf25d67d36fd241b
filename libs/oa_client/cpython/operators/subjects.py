"""People and service accounts: who is let in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from oa_client.core.accounts import AccountDeletion, account_deletion
from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import block_service_pb2 as pb
from openagents.control.v1 import installation_account_service_pb2 as account_pb
from openagents.control.v1.block_service_pb2_grpc import BlockServiceStub
from openagents.control.v1.installation_account_service_pb2_grpc import InstallationAccountServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.block_service_pb2_grpc import BlockServiceAsyncStub
    from openagents.control.v1.installation_account_service_pb2_grpc import InstallationAccountServiceAsyncStub


@dataclass(frozen=True)
class Subject:
    """A person or service account. `blocked_at` and `deleted_at` are RFC 3339, and empty if it isn't."""

    subject: str
    name: str
    org_id: str
    blocked_at: str
    live_sessions: int
    live_keys: int
    deleted_at: str
    document: JsonDocument


class SubjectOperators:
    """BlockService and InstallationAccountService over a channel, with the operators' token. Subjects are named by id,
    people also by address.

    Raises Refusal `not_found`, `unavailable`, `service_not_accepted`.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: BlockServiceAsyncStub = BlockServiceStub(channel)
        self._accounts: InstallationAccountServiceAsyncStub = InstallationAccountServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def show(self, who: str) -> Subject:
        """The person or service account."""
        found = await self._calls.done(self._stub.GetSubject, pb.GetSubjectRequest(subject=who))
        return _subject(found.subject)

    async def block(self, who: str) -> Subject:
        """Block the person or service account."""
        blocked = await self._calls.done(self._stub.BlockSubject, pb.BlockSubjectRequest(subject=who))
        return _subject(blocked.subject)

    async def unblock(self, who: str) -> Subject:
        """Remove the block."""
        unblocked = await self._calls.done(self._stub.UnblockSubject, pb.UnblockSubjectRequest(subject=who))
        return _subject(unblocked.subject)

    async def deletion(self, who: str) -> AccountDeletion:
        """Return what the deletion of the person's account would end."""
        request = account_pb.GetInstallationAccountDeletionRequest(person=who)
        found = await self._calls.done(self._accounts.GetInstallationAccountDeletion, request)
        return account_deletion(found.deletion)

    async def delete(self, who: str) -> AccountDeletion:
        """Delete the person's account for good. Raises Refusal `last_owner` with `org_ids`, the orgs that would have no
        owner."""
        request = account_pb.DeleteInstallationAccountRequest(person=who)
        ended = await self._calls.done(self._accounts.DeleteInstallationAccount, request)
        return account_deletion(ended.deletion)


def _subject(message: pb.Subject) -> Subject:
    return Subject(
        message.subject,
        message.name,
        message.org_id,
        message.block_time.ToJsonString() if message.HasField("block_time") else "",
        message.live_sessions,
        message.live_keys,
        message.delete_time.ToJsonString() if message.HasField("delete_time") else "",
        document(message),
    )
