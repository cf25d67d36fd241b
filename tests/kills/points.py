"""Places in the runtime's transactions at which it can be made to stand still: triggers that wait for a lock of ours.

They are planted in the test's own database. The service knows nothing of them, and stands exactly where it would be if
the database were slow at that statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from oa_testing.postgres import Database
from tests.kills.check import Connection

STANDS_WITHIN_S = 60.0
_FUNCTION = """
CREATE OR REPLACE FUNCTION runtime.stand_still() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
    RETURN NULL;
END
$$
"""
_STANDS = """
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted AND l.objid = $1)
"""


@dataclass(frozen=True)
class Point:
    """Before or after a statement on a table, or, with `when` COMMIT, in the commit of a transaction that had it."""

    table: str
    statement: str
    when: str = "BEFORE"

    def __str__(self) -> str:
        return f"{self.when} {self.statement} {self.table}"

    def trigger(self, number: int) -> str:
        """The statement that plants it."""
        action = f"EXECUTE FUNCTION runtime.stand_still({number})"
        if self.when == "COMMIT":
            return (
                f"CREATE CONSTRAINT TRIGGER stand_{number} AFTER {self.statement} ON runtime.{self.table} "
                f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW {action}"
            )
        what = f"{self.when} {self.statement} ON runtime.{self.table}"
        return f"CREATE TRIGGER stand_{number} {what} FOR EACH STATEMENT {action}"


class Points:
    """Points planted in a database; at those that are held, the service stands."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers: dict[Point, int] = {}
        self._held: list[Point] = []

    async def plant(self, points: Sequence[Point]) -> None:
        """Make it possible to hold the service there."""
        await self._connection.execute(_FUNCTION)
        for number, point in enumerate(points, start=1):
            await self._connection.execute(point.trigger(number))
            self._numbers[point] = number

    async def hold(self, *points: Point) -> None:
        """Let the service stand there from now on."""
        for point in points:
            await self._connection.execute("SELECT pg_advisory_lock($1)", self._numbers[point])
            self._held.append(point)

    async def reached(self) -> None:
        """Return when the service stands at every one that is held."""
        for point in self._held:
            try:
                async with asyncio.timeout(STANDS_WITHIN_S):
                    while not await self._connection.fetchval(_STANDS, self._numbers[point]):
                        await asyncio.sleep(0.01)
            except TimeoutError:
                raise AssertionError(f"never came to: {point}") from None

    async def release(self) -> None:
        """Let everybody go on."""
        await self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._held.clear()


@asynccontextmanager
async def planted(database: Database, *points: Point) -> AsyncIterator[Points]:
    """Plant points; none is held at first, and none at the end."""
    connection = await asyncpg.connect(database.admin)
    try:
        planted = Points(connection)
        await planted.plant(points)
        yield planted
    finally:
        await connection.close()
