"""Mints in Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.audit.domain import AuditEntry
from services.control.policy.domain import Role, StandingPrincipal
from services.control.sessions.domain import session_end

RECORD = """
SELECT session_created_at AS session_signed_in_at, session_refreshed_at
FROM control.record_if_acting($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
"""Records a mint, if the basis of its decisions still holds."""


class PostgresMints:
    """See `app.MintStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def record(
        self, principal: StandingPrincipal, roles: Iterable[Role], entry: AuditEntry, now: datetime
    ) -> datetime | None:
        row = await self._connection.fetchrow(
            RECORD,
            principal.session_id,
            principal.subject,
            principal.org_id,
            [role.value for role in roles],
            now,
            entry.action.value,
            entry.reason,
            entry.target,
            entry.origin.network,
            entry.origin.request_id,
        )
        return session_end(row["session_signed_in_at"], row["session_refreshed_at"]) if row else None
