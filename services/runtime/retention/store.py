"""How old finished runs in the log are, in Postgres."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres

READ_OLDEST_RUNS = """
WITH RECURSIVE oldest AS (
    (SELECT retention_class, finish_time FROM runtime.runs
     WHERE finish_time IS NOT NULL AND NOT archived ORDER BY retention_class, finish_time LIMIT 1)
    UNION ALL
    SELECT next.retention_class, next.finish_time
    FROM oldest CROSS JOIN LATERAL (
        SELECT retention_class, finish_time FROM runtime.runs
        WHERE finish_time IS NOT NULL AND NOT archived AND retention_class > oldest.retention_class
        ORDER BY retention_class, finish_time LIMIT 1
    ) next
)
SELECT retention_class, greatest(extract(epoch FROM statement_timestamp() - finish_time), 0)::float8 AS age_s
FROM oldest
"""
"""The age of each class's earliest finished run in the log. It finds the first run of the first class, then of the next
class, and so on: as many steps as there are classes."""


class PostgresOldestRuns:
    """Finished runs whose events are in the log."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def oldest(self) -> dict[str, float]:
        """Retention class -> seconds since the end of its earliest finished run; classes without one are left out."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(READ_OLDEST_RUNS)
        return {row["retention_class"]: row["age_s"] for row in rows}
