"""The audit log of an installation: the events of no org, and of any org."""

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
    """InstallationAuditService over a channel, with the operators' token. Every method may raise Refusal.

    `org_id`: the org whose log it is; empty for the log of events that belong to no org.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str, org_id: str = "") -> None:
        self._stub: InstallationAuditServiceAsyncStub = InstallationAuditServiceStub(channel)
        self._calls = OperatorCalls(token)
        self._org_id = org_id

    async def page(self, filters: AuditFilters, *, page_size: int = 0, page_token: str = "") -> AuditPage:
        """Return events, newest first. A page may be short, or empty, although another follows."""
        request = wire.installation_request(self._org_id, filters, page_size, page_token)
        answer = await self._calls.done(self._stub.ListInstallationAuditEvents, request)
        return wire.page(answer)

    async def part(self, after_sequence: int) -> AuditPart:
        """Return the chain after an event; after 0, from the oldest event that is kept."""
        request = pb.ReadInstallationAuditLogRequest(org_id=self._org_id, after_sequence=after_sequence)
        answer = await self._calls.done(self._stub.ReadInstallationAuditLog, request)
        return wire.part(answer)
