"""What becomes of the read models when an asynchronous standby is promoted that has not got the newest rows."""

from __future__ import annotations

import asyncpg

from oa_testing.postgres import Database

_COPY = """
CREATE SCHEMA standby;
CREATE TABLE standby.checkpoints AS SELECT * FROM projection.checkpoints;
CREATE TABLE standby.run_summaries AS SELECT * FROM projection.run_summaries;
CREATE TABLE standby.set_aside AS SELECT * FROM projection.set_aside;
CREATE TABLE standby.workers AS SELECT * FROM projection.workers;
CREATE TABLE standby.topic_heads AS SELECT * FROM projection.topic_heads;
CREATE TABLE standby.journal AS SELECT * FROM projection.journal;
"""
_BACK = """
DELETE FROM projection.checkpoints;
INSERT INTO projection.checkpoints SELECT * FROM standby.checkpoints;
DELETE FROM projection.run_summaries;
INSERT INTO projection.run_summaries SELECT * FROM standby.run_summaries;
DELETE FROM projection.set_aside;
INSERT INTO projection.set_aside SELECT * FROM standby.set_aside;
DELETE FROM projection.workers;
INSERT INTO projection.workers SELECT * FROM standby.workers;
DELETE FROM projection.topic_heads;
INSERT INTO projection.topic_heads SELECT * FROM standby.topic_heads;
DELETE FROM projection.journal;
INSERT INTO projection.journal SELECT * FROM standby.journal;
"""
_NOBODY = "ALTER DATABASE {} CONNECTION LIMIT 0"
_EVERYBODY = "ALTER DATABASE {} CONNECTION LIMIT -1"
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class LaggingStandby:
    """The read models as they were when this was made. `promote` brings them back: what was stored since is gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def of(cls, database: Database) -> LaggingStandby:
        """The read models as they are now."""
        standby = cls(database)
        await standby._execute(_COPY)
        return standby

    async def promote(self) -> None:
        """Lose what was stored since, and every connection: none outlives its server."""
        name = self._database.name
        await self._execute(_NOBODY.format(name), _END_SESSIONS, _BACK, _EVERYBODY.format(name))

    async def _execute(self, *statements: str) -> None:
        admin = await asyncpg.connect(self._database.admin)
        try:
            for statement in statements:
                await admin.execute(statement)
        finally:
            await admin.close()
