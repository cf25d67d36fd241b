"""The past of the log, as a server has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from oa_platform.postgres.pool import Connection, Postgres
from oa_platform.postgres.servers import RawConnection
from services.runtime.domain.batch import Head
from services.runtime.domain.lineage import Found, NewEpoch, ServerHistory
from services.runtime.store import sql_lineage as sql


class PostgresHistories:
    """The server of the moment."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def history(self) -> AsyncIterator[PostgresHistory]:
        """Asked over a connection of the pool."""
        async with self._postgres.acquire() as connection:
            yield PostgresHistory(connection)

    def on_connect(self, confirm: Callable[[PostgresHistory], Awaitable[None]]) -> None:
        """Ask over every connection that is made from now on, before anything else is done over it."""
        self._postgres.on_connect(lambda connection: confirm(PostgresHistory(connection)))


class PostgresHistory:
    """One server, asked over one connection."""

    def __init__(self, connection: Connection | RawConnection) -> None:
        self._connection = connection

    async def look(self, followed: Mapping[int, Head]) -> Found:
        """What it has of the log, and which partitions lack what was followed."""
        row = await self._connection.fetchrow(sql.READ_HISTORY)
        assert row is not None  # the migration inserts it
        seen_on = None
        if row["system_identifier"] is not None:
            seen_on = ServerHistory(row["system_identifier"], row["timeline"])
        heads = followed.values()
        rows = await self._connection.fetch(
            sql.COMPARE_HEADS, list(followed), [head.position for head in heads], [head.chain for head in heads]
        )
        return Found(
            row["log_epoch"],
            seen_on,
            ServerHistory(row["server_system_identifier"], row["server_timeline"]),
            {row["partition"]: Head(row["position"], row["chain"] or b"") for row in rows},
            tuple(row["partition"] for row in rows if row["missing"]),
        )

    async def settle(self, found: Found, epoch: str, new: NewEpoch | None, given_by: str) -> None:
        """Note the server, and give the log `epoch` if it needs a `new` one and still has the one that was found."""
        async with self._connection.transaction():
            if new is not None:
                await self._connection.execute(sql.GIVE_EPOCH, found.epoch, epoch, str(new.cause), given_by, new.detail)
            await self._connection.execute(sql.NOTE_SERVER, *found.server)
