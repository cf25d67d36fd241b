"""The tables `topic_heads` and `journal`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from oa_platform.postgres.pool import Connection, Postgres
from services.projector.journal.domain import JournalEntry, JournalRow, Looked, TopicPosition, added, numbered
from services.projector.journal.limits import Retention

_POSITIONS = "SELECT topic, floor, head FROM projection.topic_heads WHERE topic = ANY ($1::text[])"
"""Where topics stand."""

_PAGE = """
SELECT topic, seq, payload FROM projection.journal WHERE topic = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""
"""A page of a topic's past, straight from the primary key."""

_RAISE_HEADS = """
INSERT INTO projection.topic_heads AS stored (topic, head)
SELECT topic, added FROM unnest($1::text[], $2::bigint[]) AS raised (topic, added) ORDER BY topic COLLATE "C"
ON CONFLICT (topic) DO UPDATE SET head = stored.head + excluded.head
RETURNING topic, head
"""
"""Make room for new entries. Rows are inserted, and so locked, in the order of their names: two batches that share
topics wait for each other but never deadlock. The lock is held until commit, which makes seqs gap-free."""

_APPEND = """
INSERT INTO projection.journal (topic, seq, run_id, payload)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[])
"""
"""Store numbered entries."""

_LOOK = """
SELECT l.topic, j.topic IS NOT NULL
    AND (l.head - l.floor > $2 OR j.recorded_at < now() - $3 * interval '1 second') AS is_due
FROM (
    SELECT topic, head, floor FROM projection.topic_heads WHERE topic LIKE $1 AND topic > $5 ORDER BY topic LIMIT $4
) l
LEFT JOIN projection.journal j ON j.topic = l.topic AND j.seq = l.floor + 1
ORDER BY l.topic
"""
"""The next topics of a form ($1), after a name ($5), and whether each has more rows than are kept, or a row that is too
old. The limit counts the topics that are looked at: whoever looked for due ones would look at all of them at once."""

_RAISE_FLOOR = """
UPDATE projection.topic_heads h SET floor = greatest(h.floor, h.head - $2, coalesce((
    SELECT max(j.seq) FROM projection.journal j
    WHERE j.topic = h.topic AND j.recorded_at < now() - $3 * interval '1 second'), 0))
WHERE h.topic = $1 RETURNING h.floor
"""
"""Raise the floor of a topic ($1), so that at most $2 rows, and none older than $3 seconds, stay above it."""

_PRUNE = "DELETE FROM projection.journal WHERE topic = $1 AND seq <= $2"
"""Delete the rows up to a floor."""


_BEGIN_ANEW = """
INSERT INTO projection.topic_heads AS stored (topic, head, floor)
SELECT topic, 1, 1 FROM unnest($1::text[]) AS topic
ON CONFLICT (topic) DO UPDATE SET head = stored.head + 1, floor = stored.head + 1
"""
"""Raise the floors of topics above every cursor. A topic without a row has cursors, too: those at its beginning."""

_REMOVE = "DELETE FROM projection.journal WHERE topic = ANY ($1::text[])"
"""Remove the rows of topics whose heads are locked."""


_COMMIT_CHECK = "UPDATE projection.delivery_checks SET number = number + 1 RETURNING number"
"""Commits the number of a delivery check."""


class PostgresDeliveryChecks:
    """Numbers of delivery checks."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._on_commit: list[Callable[[int], None]] = []

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Call `listener` after each commit, just as rows of the journal are published after their commit."""
        self._on_commit.append(listener)

    async def commit(self) -> None:
        """Commit the next number. Raises Refusal when the database is away."""
        async with self._postgres.acquire() as connection:
            number = await connection.fetchval(_COMMIT_CHECK)
        for listener in self._on_commit:
            listener(number)


class PostgresJournalStore:
    """`app.JournalStore`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def positions(self, topics: Collection[str]) -> dict[str, TopicPosition]:
        """Read the positions of all topics in one query."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_POSITIONS, list(topics))
        return {row["topic"]: TopicPosition(row["floor"], row["head"]) for row in rows}

    async def page(self, topic: str, after_seq: int, limit: int) -> list[JournalRow]:
        """See JournalStore."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_PAGE, topic, after_seq, limit)
        return [JournalRow(row["topic"], row["seq"], row["payload"]) for row in rows]

    async def look(self, form: str, keep: Retention, limit: int, after: str) -> Looked:
        """See Prunable."""
        async with self._postgres.acquire() as connection:
            rows = await connection.fetch(_LOOK, form.replace("*", "%"), keep.rows, keep.age_s, limit, after)
        due = [row["topic"] for row in rows if row["is_due"]]
        return Looked(due, rows[-1]["topic"] if len(rows) == limit else None)

    async def prune(self, topic: str, keep: Retention) -> int:
        """See Prunable. One topic per transaction: two transactions that wait for each other's heads would deadlock."""
        async with self._postgres.transaction() as connection:
            floor = await connection.fetchval(_RAISE_FLOOR, topic, keep.rows, keep.age_s)
            done: str = await connection.execute(_PRUNE, topic, floor)
        return int(done.removeprefix("DELETE "))


class PostgresJournalWriter:
    """`app.JournalWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, entries: Sequence[JournalEntry]) -> list[JournalRow]:
        """Raise the heads, then number the entries back from them."""
        raised = added(entries)
        rows = await self._connection.fetch(_RAISE_HEADS, list(raised), list(raised.values()))
        placed = numbered(entries, {row["topic"]: row["head"] for row in rows})
        await self._connection.execute(
            _APPEND,
            [one.entry.topic for one in placed],
            [one.seq for one in placed],
            [one.entry.about for one in placed],
            [one.entry.payload for one in placed],
        )
        return [JournalRow(one.entry.topic, one.seq, one.entry.payload) for one in placed]

    async def begin_anew(self, topics: Collection[str]) -> None:
        """See JournalWriter."""
        await self._connection.execute(_BEGIN_ANEW, topics)
        await self._connection.execute(_REMOVE, topics)
