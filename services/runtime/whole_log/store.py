"""The pruned part of the log, in Postgres: floors, and pages below them."""

from __future__ import annotations

from asyncpg import Record

from oa_platform.postgres.pool import Postgres
from services.runtime.log.domain.records import LogRecord
from services.runtime.whole_log.domain import ArchivedEntry, Entry

_READ_FLOOR = "SELECT position FROM runtime.log_floors WHERE partition = $1"
"""The highest position of a partition that was archived."""

_READ_WHOLE_PAGE = """
SELECT position, run_id, seq, type, body, chain FROM (
    SELECT position, run_id, seq, type, body, chain,
           sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS bytes_before
    FROM runtime.events WHERE partition = $1 AND position > $2::bigint AND position <= $2 + $3::bigint
) in_the_log
WHERE bytes_before < $4 OR bytes_before = 0
UNION ALL
SELECT p.position, a.run_id, a.first_seq + p.nth - 1, NULL, NULL, NULL
FROM runtime.archived_positions a CROSS JOIN LATERAL unnest(a.positions) WITH ORDINALITY AS p (position, nth)
WHERE a.partition = $1 AND a.block BETWEEN $2 / 1024 AND ($2 + $3 - 1) / 1024
  AND p.position > $2 AND p.position <= $2 + $3
ORDER BY position
"""
"""The $3 positions after $2: rows, as far as they are within $4 bytes, and archived events, without type and body. One
statement sees one moment: each position is in one of the two, even if events are archived meanwhile."""


class PostgresPrunedLog:
    """Reads outside of the sequencers' transactions."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def floor(self, partition: int) -> int:
        """The highest position that was pruned."""
        async with self._postgres.acquire() as connection:
            return int(await connection.fetchval(_READ_FLOOR, partition) or 0)

    async def whole_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next `max_entries` positions, in order, rows only as far as they are within `max_bytes`."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_READ_WHOLE_PAGE, partition, after, max_entries, max_bytes)
        return [_entry(row) for row in rows]


def _entry(row: Record) -> Entry:
    if row["body"] is None:
        return ArchivedEntry(row["position"], row["run_id"], row["seq"])
    return LogRecord(row["position"], row["run_id"], row["seq"], row["type"], row["body"], row["chain"])
