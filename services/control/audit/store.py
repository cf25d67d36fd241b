"""The audit trail in Postgres. The database role may only add to it and read it."""

from __future__ import annotations

from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.audit.domain import AuditEntry

ADD = """
INSERT INTO control.audit_events (occurred_at, action, reason, actor, org_id, target, network, request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""
"""Records one entry."""


class PostgresAuditTrail:
    """See `app.AuditTrail`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, entry: AuditEntry, now: datetime) -> None:
        origin = entry.origin
        await self._connection.execute(
            ADD,
            now,
            entry.action.value,
            entry.reason,
            entry.actor,
            entry.org_id,
            entry.target,
            origin.network,
            origin.request_id,
        )
