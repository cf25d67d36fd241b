"""How Postgres would carry out the statements of a service on tables that have grown for years.

`fill` fills the tables that grow with history. `Planner` asks for the plan of a statement for any arguments (a
*generic* plan: what a prepared statement may come to after a few calls), and carries nothing out. `complaints` says
which plans take time in proportion to history.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

MANY_ROWS = 10_000
"""As many rows have the tables that grow with history."""
_STATEMENT = re.compile(r"\s*\(?(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b")
_PAST_INDEX = re.compile(r"\((?P<column>\w+) = \w+\.\w+\)")
"""A join that looks at every row: `column` is this table's, the other side comes from another one."""
_VOLATILE = re.compile(r"\b(?P<column>\w+) (?:<|<=|>|>=) \(?clock_timestamp\(\)")
"""A comparison that no index can make, because the other side changes while the statement runs."""
_SOMETIMES = re.compile(r"\(\$\d+ (?:IS NULL|= ''::text)\) OR")
"""A condition that applies to some arguments only. All rows are read that come before those for which it holds."""

Plan = Mapping[str, Any]


def statements_of(package: str) -> dict[str, str]:
    """Module and name -> SQL, of the statements that the stores of a package carry out."""
    found = {}
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        if ".store" in info.name and ".tests" not in info.name:
            module = importlib.import_module(info.name)
            for name in sorted(_carried_out(ast.parse(inspect.getsource(module)))):
                place, statement = module, name
                if "." in name:
                    other, statement = name.split(".")
                    place = getattr(module, other)
                if isinstance(sql := getattr(place, statement, None), str) and _STATEMENT.match(sql):
                    found[f"{place.__name__}.{statement}"] = sql
    return found


def _carried_out(tree: ast.Module) -> Iterator[str]:
    """The constants that are given to a connection: `NAME`, or `module.NAME`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=[ast.Name(id=name), *_]) if name.isupper():
                yield name
            case ast.Call(args=[ast.Attribute(value=ast.Name(id=module), attr=name), *_]) if name.isupper():
                yield f"{module}.{name}"


_TABLES = """
SELECT c.oid::regclass::text AS name, json_agg(json_build_object(
    'name', a.attname, 'type', format_type(a.atttypid, NULL), 'is_optional', NOT a.attnotnull,
    'is_first', a.attnum = i.indkey[0]) ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = '' AND a.attidentity = ''
JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace($1) AND c.relname <> ALL($2::text[])
GROUP BY c.oid
"""
_CHECKS = """
SELECT conrelid::regclass::text AS name, conname AS check FROM pg_constraint
WHERE contype = 'c' AND connamespace = to_regnamespace($1)
"""
_VALUES = {
    "boolean": "n % 50 = 0",
    "bytea": "sha256(n::text::bytea)",
    "jsonb": "'{}'",
    "text[]": "ARRAY[n::text]",
    "bigint[]": "ARRAY[n]",
    "timestamp with time zone": "now() - n * interval '1 minute'",
}
"""Type -> what row n has. Other types have n itself, which no unique index refuses."""


async def fill(owner: asyncpg.Connection, schema: str, small: Collection[str]) -> None:
    """Give all tables of a schema, but the small ones, `MANY_ROWS` rows that mean nothing, and analyze them. `owner` is
    the superuser's: nothing is checked."""
    for row in await owner.fetch(_CHECKS, schema):
        await owner.execute(f"ALTER TABLE {row['name']} DROP CONSTRAINT {row['check']}")
    await owner.execute("SET session_replication_role = replica")
    for row in await owner.fetch(_TABLES, schema, list(small)):
        columns = json.loads(row["columns"])
        names = ", ".join(column["name"] for column in columns)
        values = ", ".join(_value(column) for column in columns)
        rows = f"SELECT {values} FROM generate_series(1, {MANY_ROWS}) AS n"  # noqa: S608 - names of the catalogue
        await owner.execute(f"INSERT INTO {row['name']} ({names}) {rows} ON CONFLICT DO NOTHING")
    await owner.execute("ANALYZE")


def _value(column: Mapping[str, Any]) -> str:
    value = _VALUES.get(column["type"], f"n::{column['type']}")
    return f"CASE WHEN n % 4 = 0 THEN {value} END" if column["is_optional"] else value


@dataclass(frozen=True)
class Tables:
    """What plans are judged by: the tables with many rows, and the columns that an index of each begins with."""

    large: Mapping[str, frozenset[str]]
    partial: frozenset[str]
    """Indexes of a part of a table."""


_LARGE = """
SELECT c.relname AS name, array_agg(DISTINCT a.attname::text) AS columns
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE c.relkind = 'r' AND c.reltuples >= $1 AND c.relnamespace = to_regnamespace($2) GROUP BY c.relname
"""
_PARTIAL = "SELECT relname AS name FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indpred IS NOT NULL"


class Planner:
    """Asks for plans over a connection that plans as services do (`PLANNING`); `schema` has the service's tables."""

    def __init__(self, connection: asyncpg.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def tables(self) -> Tables:
        """The tables as they are now."""
        large = await self._connection.fetch(_LARGE, float(MANY_ROWS), self._schema)
        partial = await self._connection.fetch(_PARTIAL)
        return Tables(
            {row["name"]: frozenset(row["columns"]) for row in large}, frozenset(row["name"] for row in partial)
        )

    async def plan(self, sql: str) -> Plan:
        """The plan of a statement for any arguments."""
        await self._connection.execute(f"PREPARE planned AS {sql}")
        try:
            count = await self._connection.fetchval(
                "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'planned'"
            )
            arguments = f"({', '.join(['NULL'] * count)})" if count else ""
            answer = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE planned{arguments}")
        finally:
            await self._connection.execute("DEALLOCATE planned")
        plan: Plan = json.loads(answer)[0]["Plan"]
        return plan


def complaints(plan: Plan, tables: Tables, relation: str = "", *, limited: bool = False) -> Iterator[str]:
    """What in a plan takes time in proportion to a large table, or to all of a part of one for each of other rows."""
    kind = plan["Node Type"]
    relation = plan.get("Relation Name", relation)
    columns = tables.large.get(relation, frozenset())
    index = plan.get("Index Name", "")
    if relation in tables.large:
        if kind == "Seq Scan":
            yield f"reads all of {relation}"
        if index and index not in tables.partial and "Index Cond" not in plan and not limited:
            yield f"reads all of {index}"
        for pattern, why in ((_PAST_INDEX, "joins past an index"), (_VOLATILE, "compares with a time that changes")):
            named = {found["column"] for found in pattern.finditer(plan.get("Filter", ""))} & columns
            if named and "Index Cond" not in plan:
                yield f"{why}: {', '.join(sorted(named))} of {relation}"
        if _SOMETIMES.search(plan.get("Filter", "")):
            yield f"has a condition on {relation} that applies to some arguments only"
    # A limit stops what gives its rows in order. It does not stop what has to see all of them first.
    limited = (limited or kind == "Limit") and kind not in {"Sort", "Aggregate", "WindowAgg", "Hash"}
    for part in plan.get("Plans", ()):
        yield from complaints(part, tables, relation, limited=limited)
