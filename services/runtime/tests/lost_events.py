"""What becomes of the log when an asynchronous standby is promoted that has not got the newest events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from oa_testing.postgres import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_COPY = """
CREATE SCHEMA standby;
CREATE TABLE standby.runs AS SELECT * FROM runtime.runs;
CREATE TABLE standby.log_heads AS SELECT * FROM runtime.log_heads;
"""
_PROMOTE = """
ALTER TABLE runtime.events DISABLE TRIGGER USER;
DELETE FROM runtime.events e USING standby.log_heads h WHERE e.partition = h.partition AND e.position > h.position;
ALTER TABLE runtime.events ENABLE TRIGGER USER;
DELETE FROM runtime.runs;
INSERT INTO runtime.runs SELECT * FROM standby.runs;
UPDATE runtime.log_heads h SET position = s.position, chain = s.chain
FROM standby.log_heads s WHERE h.partition = s.partition;
DROP SCHEMA standby CASCADE;
"""


class LaggingStandby:
    """The log as it was when this was made. `promote` makes it the log: what was stored since is gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def of(cls, database: Database) -> LaggingStandby:
        """The log as it is now."""
        standby = cls(database)
        await standby._execute(_COPY)
        return standby

    async def promote(self) -> None:
        """Lose what was stored since."""
        await self._execute(_PROMOTE)

    async def promote_in(self, admin: Connection) -> None:
        """The same, in a transaction of the superuser's."""
        await admin.execute(_PROMOTE)

    async def _execute(self, statements: str) -> None:
        admin = await asyncpg.connect(self._database.admin)
        try:
            async with admin.transaction():
                await admin.execute(statements)
        finally:
            await admin.close()
