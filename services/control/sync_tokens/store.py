"""Mints in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.audit.domain import Action
from services.control.sessions.domain import session_end
from services.control.sync_tokens.app import Mint

RECORD = """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    WITH ORDINALITY AS mint (session_id, user_id, org_id, roles, reason, target, network, request_id, place)
), free AS MATERIALIZED (
    SELECT org_id FROM (SELECT DISTINCT org_id FROM asked) AS org
    WHERE pg_try_advisory_xact_lock_shared(control.tokens_lock(org_id))
), ready AS MATERIALIZED (
    SELECT asked.* FROM asked JOIN free USING (org_id)
)
SELECT ready.place, session_created_at AS session_signed_in_at, session_refreshed_at
FROM ready, control.record_if_acting(ready.session_id, ready.user_id, ready.org_id, string_to_array(ready.roles, ','),
    $9, $10, ready.reason, ready.target, ready.network, ready.request_id)"""
"""Records each of these mints, if the basis of its decisions still holds. None of them waits for anybody who revokes
tokens of its org, so none holds up the others: the locks are tried first, and each function finds its own taken."""


class PostgresMints:
    """See `app.MintStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def record(self, mints: Sequence[Mint], now: datetime) -> Sequence[datetime | None]:
        rows = await self._connection.fetch(
            RECORD,
            [mint.principal.session_id for mint in mints],
            [mint.principal.subject for mint in mints],
            [mint.principal.org_id for mint in mints],
            [",".join(mint.roles) for mint in mints],
            [mint.entry.reason for mint in mints],
            [mint.entry.target for mint in mints],
            [mint.entry.origin.network for mint in mints],
            [mint.entry.origin.request_id for mint in mints],
            now,
            Action.SYNC_TOKEN_MINTED.value,
        )
        ends = {row["place"]: session_end(row["session_signed_in_at"], row["session_refreshed_at"]) for row in rows}
        return [ends.get(place) for place in range(1, len(mints) + 1)]
