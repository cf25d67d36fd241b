"""message-db (Eventide): an event store in Postgres functions. Writers of one category take turns under a lock.

Its install scripts are run file by file in their own order, through asyncpg instead of psql. `pgcrypto` is left out: it
is needed only for `gen_random_uuid()`, which Postgres itself has had since version 13.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import asyncpg

from benchmarks.measure import Append

HERE = Path(__file__).parent
PACKAGE = HERE / "node_modules" / "@eventide" / "message-db" / "database"
_BEFORE = ["roles/message-store.sql", "schema/message-store.sql", "tables/messages.sql", "types/message.sql"]
_FUNCTIONS = [
    "message-store-version",
    "hash-64",
    "acquire-lock",
    "category",
    "is-category",
    "id",
    "cardinal-id",
    "stream-version",
    "write-message",
]
_INDEXES = ["messages-id", "messages-stream", "messages-category"]


def fetch() -> None:
    """Get the package in the locked version, if it isn't there."""
    if not PACKAGE.is_dir():
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=HERE, check=True, capture_output=True)


async def install(dsn: str) -> None:
    """Create the message store in the database of `dsn` (a superuser's)."""
    fetch()
    files = [*_BEFORE, *(f"functions/{name}.sql" for name in _FUNCTIONS), *(f"indexes/{name}.sql" for name in _INDEXES)]
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "message_store,public"})
    try:
        for name in files:
            await connection.execute((PACKAGE / name).read_text())
    finally:
        await connection.close()


async def producer(dsn: str, number: int, categories: int, payload: str) -> tuple[asyncpg.Connection, Append]:
    """A connection and its append: one event a call, to a stream of its own in one of `categories` categories."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "message_store,public"})
    write = await connection.prepare("SELECT write_message($1, $2, $3, $4)")
    stream = f"run{number % categories}-{uuid.uuid4()}"
    data = json.dumps({"text": payload})

    async def append(_call: int) -> int:
        await write.fetchval(str(uuid.uuid4()), stream, "TextDelta", data)
        return 1

    return connection, append
