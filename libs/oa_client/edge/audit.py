"""The audit log: who did what in the org, and what concerns the caller."""

from __future__ import annotations

from oa_client.core import audit as wire
from oa_client.core.audit import AuditFilters, AuditPage, AuditPart
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge
from openagents.control.v1 import audit_service_pb2 as pb

_AUDIT = "openagents.control.v1.AuditService"


class Audit:
    """The audit log of the caller's org. Its owners and admins may read it. All methods except `own_page` refuse others
    as `missing_scope` or `org_scope_denied`."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def page(self, filters: AuditFilters, *, page_size: int = 0, page_token: str = "") -> AuditPage:
        """Return events of the org, newest first. A page may be short, or empty, although another follows."""
        request = wire.list_request(filters, page_size, page_token)
        response = pb.ListAuditEventsResponse
        method = f"{_AUDIT}/ListAuditEvents"
        return wire.page(await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS))

    async def own_page(self, *, page_size: int = 0, page_token: str = "") -> AuditPage:
        """Return what the caller did, and what was done to the caller's account, in every org, newest first."""
        request = pb.ListOwnAuditEventsRequest(page_size=page_size, page_token=page_token)
        response = pb.ListOwnAuditEventsResponse
        method = f"{_AUDIT}/ListOwnAuditEvents"
        return wire.page(await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS))

    async def part(self, after_sequence: int) -> AuditPart:
        """Return the chain of the org after an event; after 0, from the oldest event that is kept."""
        request = pb.ReadAuditLogRequest(after_sequence=after_sequence)
        response = pb.ReadAuditLogResponse
        method = f"{_AUDIT}/ReadAuditLog"
        return wire.part(await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS))
