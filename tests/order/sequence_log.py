"""The control: a log as it is often written. Numbers come from a sequence; readers ask for "greater than the last".

A sequence gives numbers before the commit, so they become visible in another order than they were given in. A reader
that has seen 7 never asks for 6 again, and 6 may commit later. The harness has to find that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg

from tests.order.harness import Trouble, Uncertain

TABLE = """
CREATE TABLE control_log (
    position bigserial PRIMARY KEY,
    stream   text NOT NULL,
    key      text NOT NULL UNIQUE
)
"""
_POLL_S = 0.002


class SequenceLog:
    """Three "replicas" are three pools on the same table."""

    replicas = 3

    def __init__(self, dsn: str, trouble: Trouble, seed: int) -> None:
        self._dsn = dsn
        self._trouble = trouble
        self._chance = random.Random(seed)
        self._pools: list[asyncpg.Pool[asyncpg.Record]] = []

    async def __aenter__(self) -> SequenceLog:
        connection = await asyncpg.connect(self._dsn)
        await connection.execute(TABLE)
        await connection.close()
        self._pools = [await asyncpg.create_pool(self._dsn, min_size=1, max_size=8) for _ in range(self.replicas)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.terminate()

    async def append(self, replica: int, writer: int, key: str) -> None:
        """One transaction, with the same trouble as the other log has."""
        try:
            async with self._pools[replica].acquire() as connection, connection.transaction():
                await connection.execute(
                    "INSERT INTO control_log (stream, key) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
                    str(writer),
                    key,
                )
                await asyncio.sleep(self._chance.random() * self._trouble.max_delay_s)
                if self._chance.random() < self._trouble.rollback_share:
                    raise Uncertain
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise Uncertain from error

    async def read(self, reader: int) -> AsyncIterator[tuple[str, str]]:
        """`position > last`, again and again."""
        connection = await asyncpg.connect(self._dsn, server_settings={"application_name": f"reader-{reader}"})
        try:
            last = 0
            while True:
                rows = await connection.fetch(
                    "SELECT position, stream, key FROM control_log WHERE position > $1 ORDER BY position", last
                )
                for row in rows:
                    last = row["position"]
                    yield row["stream"], row["key"]
                await asyncio.sleep(_POLL_S)
        finally:
            connection.terminate()

    async def kill_a_connection(self, rng: random.Random) -> None:
        """None: this log loses events without any help."""
