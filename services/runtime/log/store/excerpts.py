"""Runs with the events that show how they stand, in Postgres."""

from __future__ import annotations

from oa_platform.postgres.pool import Postgres
from oa_runlog import wire
from services.runtime.log.domain.records import RunExcerpt, RunRecord
from services.runtime.log.limits import ExcerptLimits
from services.runtime.log.store import sql
from services.runtime.log.store.rows import state_of


class PostgresExcerpts:
    """`app.ports.RunExcerpts`."""

    def __init__(self, postgres: Postgres, limits: ExcerptLimits | None = None) -> None:
        limits = limits or ExcerptLimits()
        self._postgres = postgres
        self._bounds = (
            limits.messages,
            limits.message_bytes,
            limits.output_events,
            limits.output_bytes,
            limits.request_events,
            limits.request_bytes,
        )

    async def excerpt(self, run_id: str) -> RunExcerpt | None:
        """See RunExcerpts."""
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(sql.READ_EXCERPT, run_id, *self._bounds)
        if row is None:
            return None
        state = state_of(row)
        run = RunRecord(state, wire.decode_spec(row["spec"]), state.latest_seq if row["archived"] else 0)
        return RunExcerpt(run, row["messages"], row["output"], row["requests"], row["progress"], row["steps"])
