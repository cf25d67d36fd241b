"""The past of the journal, as a server has it."""

from __future__ import annotations

from oa_platform.postgres.history import Found, NewEpoch, ServerHistory
from oa_platform.postgres.lineage import read_server
from oa_platform.postgres.pool import Connection
from oa_platform.postgres.servers import RawConnection
from services.projector.lineage.domain import Followed, StoredRow, lacking

_READ_LINEAGE = "SELECT epoch, system_identifier, timeline, table_oid FROM projection.journal_epoch"
"""The journal's epoch, and where it was last seen."""

_POSITIONS = """
SELECT projection || '/' || version || '/' || partition AS name, position FROM projection.checkpoints
"""
"""How far all projections have come."""

_ROWS = """
SELECT f.topic, f.seq, coalesce(h.floor, 0) AS floor, sha256(j.payload) AS digest
FROM unnest($1::text[], $2::bigint[]) AS f (topic, seq)
LEFT JOIN projection.topic_heads h ON h.topic = f.topic
LEFT JOIN projection.journal j ON j.topic = f.topic AND j.seq = f.seq
"""
"""What there is where rows are expected, all at the same moment."""

_GIVE_EPOCH = "SELECT projection.give_journal_epoch($1, $2, $3, $4, $5)"
"""Gives the journal a new epoch, if it still has the old one."""

_NOTE_SERVER = "UPDATE projection.journal_epoch SET system_identifier = $1, timeline = $2, table_oid = $3"
"""Notes where the journal is."""


class PostgresHistory:
    """One server, asked over one connection."""

    def __init__(self, connection: Connection | RawConnection) -> None:
        self._connection = connection

    async def look(self, followed: Followed | None) -> Found[Followed]:
        """Return what the server has of the journal, and what it lacks of what was followed."""
        server = await read_server(self._connection, "projection.journal")
        row = await self._connection.fetchrow(_READ_LINEAGE)
        assert row is not None  # the migration inserts it
        seen_on = None
        if row["system_identifier"] is not None:
            seen_on = ServerHistory(row["system_identifier"], row["timeline"], row["table_oid"])
        expected = followed or Followed({}, ())
        topics, seqs = [mark.topic for mark in expected.rows], [mark.seq for mark in expected.rows]
        positions = {one["name"]: one["position"] for one in await self._connection.fetch(_POSITIONS)}
        rows = [StoredRow(**one) for one in await self._connection.fetch(_ROWS, topics, seqs)] if topics else []
        return Found(
            row["epoch"],
            seen_on,
            server,
            Followed(positions, ()),
            lacking(expected, positions, rows),
        )

    async def settle(self, found: Found[Followed], epoch: str, new: NewEpoch | None, given_by: str) -> None:
        """Note the server, and give the journal `epoch` if it needs a `new` one and still has the one found."""
        async with self._connection.transaction():
            if new is not None:
                await self._connection.execute(_GIVE_EPOCH, found.epoch, epoch, str(new.cause), given_by, new.detail)
            await self._connection.execute(_NOTE_SERVER, *found.server)
