"""The past of the log, as a server has it."""

from __future__ import annotations

from oa_platform.postgres.history import Found, NewEpoch, ServerHistory
from oa_platform.postgres.lineage import read_server
from oa_platform.postgres.pool import Connection, Postgres
from oa_platform.postgres.servers import RawConnection
from services.runtime.authority.app import Heads
from services.runtime.authority.domain import Head, Installation

_READ_LINEAGE = "SELECT log_epoch, system_identifier, timeline, table_oid FROM runtime.installation"
"""The log's epoch, and where it was last seen."""

_COMPARE_HEADS = """
SELECT h.partition, h.position, h.chain, coalesce(
    h.position < f.position
    OR f.chain <> '' AND f.chain <> coalesce(e.chain, CASE WHEN h.position = f.position THEN h.chain END), false
) AS missing
FROM runtime.log_heads h
LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bytea[]) AS f (partition, position, chain) USING (partition)
LEFT JOIN runtime.events e ON e.partition = f.partition AND e.position = f.position
ORDER BY h.partition
"""
"""The heads, and whether the event that was followed last is no longer in the log. If it was archived meanwhile, its
number has to suffice."""

_GIVE_EPOCH = "SELECT runtime.give_log_epoch($1, $2, $3, $4, $5)"
"""Gives the log a new epoch, if it still has the old one."""

_NOTE_SERVER = "UPDATE runtime.installation SET system_identifier = $1, timeline = $2, table_oid = $3"
"""Notes where the log is."""

_READ_INSTALLATION = "SELECT partitions, receipt_log FROM runtime.installation"
"""The values that were fixed at the installation."""


async def read_installation(postgres: Postgres) -> Installation:
    """The values that were fixed when this installation was made."""
    async with postgres.acquire() as connection:
        row = await connection.fetchrow(_READ_INSTALLATION)
    assert row is not None  # the migration inserts it
    return Installation(row["partitions"], row["receipt_log"])


class PostgresHistory:
    """One server, asked over one connection."""

    def __init__(self, connection: Connection | RawConnection) -> None:
        self._connection = connection

    async def look(self, followed: Heads | None) -> Found[Heads]:
        """Return what the server has of the log, and which partitions lack something that was followed."""
        followed = followed or {}
        server = await read_server(self._connection, "runtime.events")
        row = await self._connection.fetchrow(_READ_LINEAGE)
        assert row is not None  # the migration inserts it
        seen_on = None
        if row["system_identifier"] is not None:
            seen_on = ServerHistory(row["system_identifier"], row["timeline"], row["table_oid"])
        heads = followed.values()
        rows = await self._connection.fetch(
            _COMPARE_HEADS, list(followed), [head.position for head in heads], [head.chain for head in heads]
        )
        return Found(
            row["log_epoch"],
            seen_on,
            server,
            {row["partition"]: Head(row["position"], row["chain"] or b"") for row in rows},
            tuple(f"partition {row['partition']}" for row in rows if row["missing"]),
        )

    async def settle(self, found: Found[Heads], epoch: str, new: NewEpoch | None, given_by: str) -> None:
        """Note the server, and give the log `epoch` if it needs a `new` one and still has the one that was found."""
        async with self._connection.transaction():
            if new is not None:
                await self._connection.execute(_GIVE_EPOCH, found.epoch, epoch, str(new.cause), given_by, new.detail)
            await self._connection.execute(_NOTE_SERVER, *found.server)
