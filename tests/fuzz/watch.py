"""What a running stack shows of itself: what is stored, what is counted, what is logged."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any

import asyncpg

from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.postgres.server import SUPERUSER
from oa_platform.postgres.planes import DATABASE
from oa_testing.plain_http import plain_http
from oa_testing.stack import StackUnderTest

SERVICES = ("control", "runtime", "projector", "khala_gateway")
WAIT_S = 60.0
_REFUSALS = re.compile(r'^oa_refusals_total\{reason="(\w+)".*\} (\S+)$', re.MULTILINE)
_BUSY = """
SELECT EXISTS (SELECT FROM runtime.receipts_unmerged) OR EXISTS (SELECT FROM control.mails)
    OR (SELECT sum(position) FROM runtime.log_heads) > (SELECT sum(position) FROM projection.checkpoints)
"""
IGNORED_TABLES = frozenset(
    {
        # Refusals are recorded in the one and counted in the other: that is what they are for.
        "control.audit_events",
        "control.rate_limits",
        # What was recorded gets its place in its chain a moment later.
        "control.audit_seals",
        "control.audit_waiting",
        # Counts the looks of each replica, whatever is asked.
        "runtime.replicas",
        "runtime.delivery_checks",
        "projection.delivery_checks",
        # What becomes of workers goes on by itself, as do the columns of `runtime.workers` below.
        "runtime.worker_events",
        "runtime.worker_topics",
        "projection.workers",
        # Follow what control tells, a moment later.
        "runtime.places",
        "projection.places",
        "runtime.ended_accounts",
    }
)
IGNORED_COLUMNS = {
    # Written about once a minute, for all keys that were used.
    "control.api_keys": frozenset({"last_used_at", "prefix"}),
    "runtime.workers": frozenset({"last_heartbeat_at", "attached_at", "attachment", "status"}),
    "projection.checkpoints": frozenset({"updated_at"}),
}
_OF_WORKERS = "topic LIKE 'org:%:workers'"
IGNORED_ROWS = {"projection.journal": _OF_WORKERS, "projection.topic_heads": _OF_WORKERS}


class Watch:
    """Looks at one stack."""

    def __init__(self, stack: StackUnderTest) -> None:
        self._stack = stack
        ports = stack.ports
        self._ops = {
            "control": ports.control_ops,
            "runtime": ports.runtime_ops,
            "projector": ports.projector_ops,
            "khala_gateway": ports.gateway_ops,
        }
        self._http = plain_http(timeout_s=WAIT_S)
        self._database: asyncpg.Connection | None = None
        self._digest_sql = ""

    async def close(self) -> None:
        """Let go of everything."""
        await self._http.aclose()
        if self._database is not None:
            await self._database.close()

    # ------------------------------------------------------------------------------------------------- stored

    async def digest(self) -> dict[str, str]:
        """Table -> hash of what it holds, for every table of ours; taken in one statement."""
        database = await self._connection()
        rows = await database.fetch(self._digest_sql)
        return {row["name"]: row["digest"] or "" for row in rows}

    async def settled(self) -> dict[str, str]:
        """The digest, once receipts are merged, mails delivered, and the projection has caught up."""
        async with asyncio.timeout(WAIT_S):
            while await self.fetchval(_BUSY):
                await asyncio.sleep(0.02)
        return await self.digest()

    async def recorded(self) -> int:
        """How many events control has recorded."""
        return int(await self.fetchval("SELECT count(*) FROM control.audit_events"))

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        """One value from the database."""
        return await (await self._connection()).fetchval(statement, *arguments)

    async def _connection(self) -> asyncpg.Connection:
        if self._database is None:
            secrets = load_or_create(self._stack.home / "secrets")
            self._database = await asyncpg.connect(role_dsn(SUPERUSER, self._stack.ports, secrets, DATABASE))
            self._digest_sql = await _digest_statement(self._database)
        return self._database

    # ------------------------------------------------------------------------------------------------- counted

    async def metrics(self, service: str, name: str = "") -> str:
        """What the ops port says, of all metrics or of one: all are some thousand lines, each time."""
        url = f"http://127.0.0.1:{self._ops[service]}/metrics"
        return (await self._http.get(url, params={"name[]": name} if name else None)).text

    async def refusals(self, service: str) -> Counter[str]:
        """Reason -> how often this process has refused for it."""
        found: Counter[str] = Counter()
        for reason, count in _REFUSALS.findall(await self.metrics(service, "oa_refusals_total")):
            found[reason] += int(float(count))
        return found

    # ------------------------------------------------------------------------------------------------- logged

    def log_mark(self, service: str) -> int:
        """Where the log ends now."""
        return self._stack.log_path(service).stat().st_size

    def log_since(self, service: str, mark: int) -> list[dict[str, Any]]:
        """The lines since then. What is not JSON becomes a line of its own kind: nothing may be logged past the log."""
        with self._stack.log_path(service).open("rb") as file:
            file.seek(mark)
            return [_line(line) for line in file.read().splitlines()]


def _line(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"event": line.decode(errors="replace"), "level": "not json"}


def refusals_in(lines: list[dict[str, Any]]) -> Counter[str]:
    """Reason -> lines that say that something was refused for it."""
    return Counter(str(line["reason"]) for line in lines if line.get("reason") not in (None, "ok"))


def defects_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines that only a defect of ours writes."""
    bad = ("error", "critical", "not json")
    return [
        line for line in lines if line.get("level") in bad or "exception" in line or line.get("reason") == "internal"
    ]


async def _digest_statement(database: asyncpg.Connection) -> str:
    rows = await database.fetch(
        "SELECT table_schema || '.' || table_name AS name, array_agg(column_name::text) AS columns"
        " FROM information_schema.columns WHERE table_schema IN ('control', 'runtime', 'projection') GROUP BY 1"
    )
    tables = {row["name"]: row["columns"] for row in rows if row["name"] not in IGNORED_TABLES}
    assert len(tables) > 15, sorted(tables)
    return " UNION ALL ".join(_table_digest(name, columns) for name, columns in sorted(tables.items()))


def _table_digest(name: str, columns: list[str]) -> str:
    kept = ", ".join(f'"{column}"' for column in columns if column not in IGNORED_COLUMNS.get(name, ()))
    ignored = IGNORED_ROWS.get(name, "false")
    rows = f"SELECT md5(row({kept})::text) AS h FROM {name} WHERE NOT ({ignored})"  # noqa: S608 - names come from the catalogue
    return f"SELECT '{name}' AS name, md5(string_agg(h, '' ORDER BY h)) AS digest FROM ({rows}) AS r"  # noqa: S608
