"""Groups, canaries and maintenance in Postgres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.listen import Connection as ListeningConnection
from oa_platform.postgres.listen import Listener
from oa_platform.postgres.pool import Connection
from services.control.routes.app.book import RouteBook
from services.control.routes.app.tables import Decided
from services.control.routes.domain.canary import Canary, Measured, Outcome, Why
from services.control.routes.domain.groups import Group, Groups, Side
from services.control.routes.domain.maintenance import Maintenance

CHANNEL = "control_routes"

LOCK = f"""
WITH counted AS (UPDATE control.route_head SET change = change + 1 RETURNING change)
SELECT pg_notify('{CHANNEL}', change::text) FROM counted"""  # noqa: S608 - a constant
"""Counts a change, and tells all replicas once it is committed."""
CHANGE = "SELECT change FROM control.route_head"
"""The number of changes so far."""
DECIDED = """
SELECT change, version, base, groups, maintenance_number, maintenance_since, maintenance_notice, maintenance_retry_ms,
       (SELECT COALESCE(jsonb_agg(to_jsonb(one) ORDER BY canary_id), '[]')
        FROM control.canaries AS one WHERE ended_at IS NULL) AS canaries
FROM control.route_head JOIN control.route_versions USING (version)"""
"""All decisions, as of one moment because it is one statement."""
NEWEST_CANARIES = """
SELECT DISTINCT ON (group_name) canary_id, group_name, step, step_at, hold_ms, min_requests, ended_at, outcome, reason
FROM control.canaries ORDER BY group_name, canary_id DESC"""
"""The newest canary of each group."""
ADD_VERSION = """
WITH next AS (UPDATE control.route_head SET version = version + 1 RETURNING version)
INSERT INTO control.route_versions (version, base, groups, made_at) SELECT version, $1, $2, $3 FROM next
RETURNING version"""
"""Adds the next version."""
VERSION = "SELECT groups, base FROM control.route_versions WHERE version = $1"
"""One version."""
SET_MAINTENANCE = """
UPDATE control.route_head SET
    maintenance_since = $1, maintenance_notice = $2, maintenance_retry_ms = $3,
    maintenance_number = maintenance_number + (CASE WHEN $1::timestamptz IS NULL THEN 1 ELSE 0 END)"""
"""Closes the site, or opens it, which makes its bypasses invalid."""
ADD_CANARY = """
INSERT INTO control.canaries (group_name, step, step_at, hold_ms, min_requests) VALUES ($1, 0, $4, $2, $3)
RETURNING canary_id"""
"""Begins a canary."""
STEP_CANARY = "UPDATE control.canaries SET step = $2, step_at = $3 WHERE canary_id = $1"
"""Moves a canary to a step."""
END_CANARIES = """
UPDATE control.canaries SET ended_at = $4, outcome = $2, reason = $3
WHERE ended_at IS NULL AND ($1::text IS NULL OR group_name = $1) RETURNING canary_id"""
"""Ends running canaries, of one group or of all."""
ADD_MEASURED = """
INSERT INTO control.canary_samples AS s (canary_id, step, side, requests, errors, times)
SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT FROM control.canaries WHERE canary_id = $1)
ON CONFLICT (canary_id, step, side) DO UPDATE SET
    requests = s.requests + excluded.requests,
    errors = s.errors + excluded.errors,
    times = ARRAY(SELECT one + more FROM unnest(s.times, excluded.times) AS pair (one, more))"""
"""Adds to the measurements of the replicas."""
MEASURED = """
SELECT side, requests, errors, times FROM control.canary_samples
WHERE canary_id = $1 AND (side = 'legacy' OR step = $2) ORDER BY step DESC"""
"""The measurements of the legacy side in each step, the newest one first, and of the shell in one."""
SWEEP_VERSIONS = (
    "DELETE FROM control.route_versions WHERE version <= (SELECT version FROM control.route_head) - $1::bigint"
)
"""Removes the oldest versions; the present one stays."""
SWEEP_CANARIES = "DELETE FROM control.canaries WHERE ended_at < $1"
"""Removes canaries that ended before a time, with their measurements."""


def listener(settings: DatabaseSettings, book: RouteBook, interval_s: float) -> Listener:
    """Return a listener that notifies `book` of changes that any replica commits."""

    async def look(connection: ListeningConnection) -> None:
        book.looked(int(await connection.fetchval(CHANGE)))

    def heard(_: str, _change: str) -> None:
        book.word()

    return Listener(settings, "control", [CHANNEL], on_notify=heard, look=look, interval_s=interval_s)


class PostgresRoutes:
    """See `app.RouteTables`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> None:
        await self._connection.execute(LOCK)

    async def decided(self) -> Decided:
        row = await self._connection.fetchrow(DECIDED)
        if row is None:
            raise RuntimeError("control.route_head has no row")
        return Decided(
            change=row["change"],
            version=row["version"],
            base=row["base"],
            groups=_groups(row["groups"]),
            maintenance_number=row["maintenance_number"],
            maintenance=_maintenance(dict(row)) if row["maintenance_since"] else None,
            canaries=[_canary(one | {"step_at": _time(one["step_at"])}) for one in json.loads(row["canaries"])],
        )

    async def newest_canaries(self) -> Sequence[Canary]:
        return [_canary(dict(row)) for row in await self._connection.fetch(NEWEST_CANARIES)]

    async def add_version(self, groups: Groups, base: int, now: datetime) -> int:
        return int(await self._connection.fetchval(ADD_VERSION, base, _document(groups), now))

    async def version(self, version: int) -> tuple[Groups, int] | None:
        row = await self._connection.fetchrow(VERSION, version)
        return None if row is None else (_groups(row["groups"]), row["base"])

    async def set_maintenance(self, maintenance: Maintenance | None) -> None:
        values = (maintenance.since, maintenance.notice, maintenance.retry_after_ms) if maintenance else (None, "", 0)
        await self._connection.execute(SET_MAINTENANCE, *values)

    async def add_canary(self, group: str, hold_ms: int, min_requests: int, now: datetime) -> int:
        return int(await self._connection.fetchval(ADD_CANARY, group, hold_ms, min_requests, now))

    async def step_canary(self, canary_id: int, step: int, now: datetime) -> None:
        await self._connection.execute(STEP_CANARY, canary_id, step, now)

    async def end_canaries(self, group: str | None, outcome: Outcome, why: Why, now: datetime) -> int:
        return len(await self._connection.fetch(END_CANARIES, group, outcome.value, why.value, now))

    async def add_measured(self, canary_id: int, step: int, side: Side, measured: Measured) -> None:
        values = measured.requests, measured.errors, measured.times
        await self._connection.execute(ADD_MEASURED, canary_id, step, side.value, *values)

    async def measured(self, canary: Canary) -> tuple[Sequence[Measured], Measured]:
        sides: dict[Side, list[Measured]] = {side: [] for side in Side}
        for row in await self._connection.fetch(MEASURED, canary.canary_id, canary.step):
            sides[Side(row["side"])].append(Measured(row["requests"], row["errors"], list(row["times"])))
        (shell,) = sides[Side.SHELL] or [Measured()]
        return sides[Side.LEGACY], shell

    async def sweep(self, versions: int, ended_before: datetime) -> None:
        await self._connection.execute(SWEEP_VERSIONS, versions)
        await self._connection.execute(SWEEP_CANARIES, ended_before)


def _document(groups: Groups) -> str:
    return json.dumps(
        [
            {"name": one.name, "prefixes": list(one.prefixes), "pinned": one.pinned or "", "percent": one.percent}
            for one in groups
        ]
    )


def _groups(document: str) -> Groups:
    return Groups(
        Group(
            name=one["name"],
            prefixes=tuple(one["prefixes"]),
            pinned=Side(one["pinned"]) if one["pinned"] else None,
            percent=one["percent"],
        )
        for one in json.loads(document)
    )


def _maintenance(row: Mapping[str, Any]) -> Maintenance:
    return Maintenance(
        row["maintenance_number"], row["maintenance_since"], row["maintenance_notice"], row["maintenance_retry_ms"]
    )


def _canary(row: dict[str, Any]) -> Canary:
    return Canary(
        canary_id=row["canary_id"],
        group=row["group_name"],
        step=row["step"],
        step_at=row["step_at"],
        hold_ms=row["hold_ms"],
        min_requests=row["min_requests"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
        reason=row["reason"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
