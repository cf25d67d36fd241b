"""All orgs, whoever their members are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from oa_client.core.models import JsonDocument
from oa_client.core.orgs import Member, member
from oa_client.core.wire import document
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import installation_org_service_pb2 as pb
from openagents.control.v1.installation_org_service_pb2_grpc import InstallationOrgServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.installation_org_service_pb2_grpc import InstallationOrgServiceAsyncStub

_PAGE = 200


@dataclass(frozen=True)
class InstallationOrg:
    """An org. Times are RFC 3339: `deletes_at` is empty unless it was deleted, `gone_at` unless it is gone."""

    org_id: str
    name: str
    personal: bool
    created_at: str
    deletes_at: str
    gone_at: str
    members: int
    service_accounts: int
    document: JsonDocument


class OrgOperators:
    """InstallationOrgService over a channel, with the operators' token.

    Raises Refusal `not_found`, `invalid_value`, `org_deleted`, `unavailable`, `service_not_accepted`.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: InstallationOrgServiceAsyncStub = InstallationOrgServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def list(self, person: str = "", *, deleted: bool = False) -> AsyncIterator[InstallationOrg]:
        """Yield all orgs, or those of a person (id or address), oldest first. With `deleted`, only the deleted ones."""
        request = pb.ListInstallationOrgsRequest(person=person, deleted=deleted, page_size=_PAGE)
        while True:
            answer = await self._calls.done(self._stub.ListInstallationOrgs, request)
            for one in answer.orgs:
                yield _org(one)
            if answer.next_page_token in ("", request.page_token):
                return
            request.page_token = answer.next_page_token

    async def show(self, org_id: str) -> tuple[InstallationOrg, Sequence[Member], JsonDocument]:
        """An org, its members, and both as a document."""
        found = await self._calls.done(self._stub.GetInstallationOrg, pb.GetInstallationOrgRequest(org_id=org_id))
        return _org(found.org), [member(one) for one in found.members], document(found)

    async def set_owner(self, org_id: str, person: str) -> tuple[Member, JsonDocument]:
        """Make a member (id or address) the owner of an org none of whose owners can act; return the member.

        Raises also Refusal `already_exists`, `personal_org`, `limit_reached`.
        """
        request = pb.SetInstallationOrgOwnerRequest(org_id=org_id, person=person)
        done = await self._calls.done(self._stub.SetInstallationOrgOwner, request)
        return member(done.owner), document(done)

    async def restore(self, org_id: str) -> InstallationOrg:
        """Open a deleted org again."""
        request = pb.RestoreInstallationOrgRequest(org_id=org_id)
        return _org((await self._calls.done(self._stub.RestoreInstallationOrg, request)).org)


def _org(message: pb.InstallationOrg) -> InstallationOrg:
    return InstallationOrg(
        message.org_id,
        message.name,
        message.personal,
        message.create_time.ToJsonString(),
        message.delete_time.ToJsonString() if message.HasField("delete_time") else "",
        message.end_time.ToJsonString() if message.HasField("end_time") else "",
        message.members,
        message.service_accounts,
        document(message),
    )
