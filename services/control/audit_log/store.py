"""The audit log in Postgres. The role can add events and seals. It can change none, and remove only the oldest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.columns import columns
from oa_platform.postgres.pool import Connection
from oa_runlog.proof.audit import AuditHead
from services.control.audit.domain import OPERATOR
from services.control.audit_log.app.tables import Backlog, Looked
from services.control.audit_log.domain import DONE_FOR_A_REASON, Filters, Outcome, RecordedEvent, Seal

_SELECT = """
SELECT e.audit_id, e.occurred_at, e.action, e.reason, e.actor, e.org_id, e.target, e.network, e.request_id,
       coalesce(s.sequence, 0) AS sequence, s.chain"""
"""Selects events and their places. Statements add the condition."""

LOCK = "SELECT only_one FROM control.audit_sealing FOR UPDATE SKIP LOCKED"
"""Lets one replica seal at a time. A replica that finds it locked leaves the work to the other."""
WAITING = """
SELECT audit_id FROM control.audit_waiting WHERE audit_id <> ALL($2::bigint[]) ORDER BY audit_id LIMIT $1"""
"""The ids of events without a seal."""
UNSEALED = f"""{_SELECT}
FROM control.audit_waiting w JOIN control.audit_events e USING (audit_id)
LEFT JOIN control.audit_seals s USING (audit_id) WHERE w.audit_id = ANY($1::bigint[]) ORDER BY w.audit_id"""
"""Those of some events that have no seal."""
HEADS = """
SELECT o.org_id, s.sequence, s.chain FROM unnest($1::text[]) AS o (org_id) CROSS JOIN LATERAL (
    SELECT sequence, chain FROM control.audit_seals a WHERE a.org_id = o.org_id ORDER BY sequence DESC LIMIT 1
) AS s"""
"""The heads of the chains of some orgs."""
SEAL = """
INSERT INTO control.audit_seals (org_id, sequence, audit_id, chain)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[])"""
"""Gives events their places."""
WAIT_NO_MORE = "DELETE FROM control.audit_waiting WHERE audit_id = ANY($1::bigint[])"
"""Removes sealed events from those that wait."""
BACKLOG = """
SELECT count(*) AS events, extract(epoch FROM min(e.occurred_at))::float8 AS oldest_s
FROM control.audit_waiting w JOIN control.audit_events e USING (audit_id)"""
"""The events that wait for a seal. A number: no `datetime` stands for every time that a damaged row may have."""
DROP = "SELECT control.drop_audit_events($1, $2)"
"""Drops the oldest events from before a time."""

LOOKED = """
SELECT count(*) AS events, coalesce(min(audit_id), 0) AS lowest_id FROM (
    SELECT audit_id FROM control.audit_events WHERE org_id = $1 AND audit_id < $2 ORDER BY audit_id DESC LIMIT $3
) AS looked"""
"""The number of an org's newest events below a row, up to a limit, and the lowest id among them."""
LISTED = f"""{_SELECT}
FROM control.audit_events e LEFT JOIN control.audit_seals s USING (audit_id)
WHERE e.org_id = $1 AND e.audit_id < $2 AND e.audit_id >= $3
  AND ($4 = '' OR e.actor = $4) AND ($5 = '' OR e.action = $5)
  AND ($6 = '' OR e.target = $6 OR e.target = $12 OR split_part(e.target, ' ', 2) = $12)
  AND ($7::boolean IS NULL OR $7 = (e.reason <> '' AND e.action <> ALL($8::text[])))
  AND ($9::timestamptz IS NULL OR e.occurred_at >= $9) AND ($10::timestamptz IS NULL OR e.occurred_at < $10)
ORDER BY e.audit_id DESC LIMIT $11"""
"""Events of an org, filtered, newest first."""
_ENDED = """
SELECT session_id FROM control.sessions WHERE user_id = $1 AND revoked_at IS NOT NULL
UNION ALL
SELECT api_key_id FROM control.api_keys WHERE owner = $1 AND revoked_at IS NOT NULL"""
"""The sessions and keys of a person that have ended."""
_MINE = f"""
(SELECT * FROM control.audit_events WHERE actor = $1 AND audit_id < $2 ORDER BY audit_id DESC LIMIT $3)
UNION
(SELECT * FROM control.audit_events WHERE target = $1 AND starts_with(target, 'usr_') AND audit_id < $2
 ORDER BY audit_id DESC LIMIT $3)
UNION
(SELECT * FROM control.audit_events WHERE actor = '{OPERATOR}' AND target = ANY(ARRAY({_ENDED}))
 AND audit_id < $2 ORDER BY audit_id DESC LIMIT $3)"""  # noqa: S608 - constants
OWN = (
    f"{_SELECT} FROM ({_MINE}) AS e LEFT JOIN control.audit_seals s USING (audit_id) ORDER BY e.audit_id DESC LIMIT $3"
)
"""Events whose actor is the subject, whose target is this person, or with which operators ended a session or key of
this person; newest first."""
KNOWS = """
SELECT EXISTS (SELECT FROM control.orgs WHERE org_id = $1)
    OR EXISTS (SELECT FROM control.audit_events WHERE org_id = $1)"""
"""Whether there is such an org, or was one that still has events."""
HEAD = "SELECT sequence, chain FROM control.audit_seals WHERE org_id = $1 ORDER BY sequence DESC LIMIT 1"
"""The head of a chain."""
START = """
SELECT s.sequence, s.chain,
       EXISTS (SELECT FROM control.audit_events e WHERE e.audit_id = s.audit_id) AS has_event
FROM control.audit_seals s WHERE s.org_id = $1 AND s.sequence >= $2 ORDER BY s.sequence LIMIT 1"""
"""The requested place, or the first existing place after it."""
SEALED = f"""{_SELECT}
FROM control.audit_seals s JOIN control.audit_events e USING (audit_id)
WHERE s.org_id = $1 AND s.sequence > $2 ORDER BY s.sequence LIMIT $3"""
"""The next events of a chain."""


class PostgresSeals:
    """See `app.tables.SealStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> bool:
        return await self._connection.fetchval(LOCK) is not None

    async def waiting(self, limit: int, left_out: Sequence[int]) -> Sequence[int]:
        return [row["audit_id"] for row in await self._connection.fetch(WAITING, limit, left_out)]

    async def events(self, ids: Sequence[int]) -> Sequence[RecordedEvent]:
        return [_event(row) for row in await self._connection.fetch(UNSEALED, ids)]

    async def heads(self, org_ids: Sequence[str]) -> Mapping[str, AuditHead]:
        return {row["org_id"]: _head(row) for row in await self._connection.fetch(HEADS, org_ids)}

    async def seal(self, seals: Sequence[Seal]) -> None:
        rows = [(seal.org_id, seal.head.sequence, seal.audit_id, seal.head.chain) for seal in seals]
        await self._connection.execute(SEAL, *columns(rows, 4))
        await self._connection.execute(WAIT_NO_MORE, [seal.audit_id for seal in seals])

    async def backlog(self) -> Backlog:
        row = await self._connection.fetchrow(BACKLOG)
        assert row is not None  # it counts
        return Backlog(row["events"], row["oldest_s"])

    async def drop(self, before: datetime, limit: int) -> int:
        return int(await self._connection.fetchval(DROP, before, limit))


class PostgresAuditLog:
    """See `app.tables.AuditReader`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def looked(self, org_id: str, below_id: int, limit: int) -> Looked:
        row = await self._connection.fetchrow(LOOKED, org_id, below_id, limit)
        assert row is not None  # it counts
        return Looked(row["events"], row["lowest_id"])

    async def listed(
        self, org_id: str, below_id: int, lowest_id: int, filters: Filters, limit: int
    ) -> Sequence[RecordedEvent]:
        refused = None if filters.outcome is None else filters.outcome is Outcome.REFUSED
        rows = await self._connection.fetch(
            LISTED,
            org_id,
            below_id,
            lowest_id,
            filters.actor,
            filters.action,
            filters.target,
            refused,
            sorted(DONE_FOR_A_REASON),
            filters.since,
            filters.until,
            limit,
            filters.address,
        )
        return [_event(row) for row in rows]

    async def own(self, subject: str, below_id: int, limit: int) -> Sequence[RecordedEvent]:
        return [_event(row) for row in await self._connection.fetch(OWN, subject, below_id, limit)]

    async def knows(self, org_id: str) -> bool:
        return bool(await self._connection.fetchval(KNOWS, org_id))

    async def head(self, org_id: str) -> AuditHead | None:
        row = await self._connection.fetchrow(HEAD, org_id)
        return _head(row) if row else None

    async def start(self, org_id: str, after_sequence: int) -> AuditHead | None:
        row = await self._connection.fetchrow(START, org_id, after_sequence)
        # The events continue from the oldest seal, unless that is the seal of the first of them.
        return None if row is None or (after_sequence == 0 and row["has_event"]) else _head(row)

    async def sealed(self, org_id: str, after_sequence: int, limit: int) -> Sequence[tuple[RecordedEvent, AuditHead]]:
        rows = await self._connection.fetch(SEALED, org_id, after_sequence, limit)
        return [(_event(row), _head(row)) for row in rows]


def _event(row: asyncpg.Record) -> RecordedEvent:
    return RecordedEvent(**{name: row[name] for name in RecordedEvent.__slots__})


def _head(row: asyncpg.Record) -> AuditHead:
    return AuditHead(row["sequence"], row["chain"])
