"""The audit log of an installation: what happened in no org, and in any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from oa_client.core import audit as wire
from oa_client.core.audit import AuditFilters, AuditPage, AuditPart
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import installation_audit_service_pb2 as pb
from openagents.control.v1.installation_audit_service_pb2_grpc import InstallationAuditServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.installation_audit_service_pb2_grpc import InstallationAuditServiceAsyncStub


class AuditOperators:
    """InstallationAuditService over a channel, with the operators' token. Everything raises Refusal.

    `org_id`: whose log; empty for that of what has no org.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str, org_id: str = "") -> None:
        self._stub: InstallationAuditServiceAsyncStub = InstallationAuditServiceStub(channel)
        self._calls = OperatorCalls(token)
        self._org_id = org_id

    async def page(self, filters: AuditFilters, *, page_size: int = 0, page_token: str = "") -> AuditPage:
        """Events, the newest first. A page may be short, or empty, although another follows."""
        request = wire.installation_request(self._org_id, filters, page_size, page_token)
        answer = await self._calls.done(self._stub.ListInstallationAuditEvents, request)
        return wire.page(answer)

    async def part(self, after_sequence: int) -> AuditPart:
        """The chain after an event; after 0 from the oldest event that is kept."""
        request = pb.ReadInstallationAuditLogRequest(org_id=self._org_id, after_sequence=after_sequence)
        answer = await self._calls.done(self._stub.ReadInstallationAuditLog, request)
        return wire.part(answer)
