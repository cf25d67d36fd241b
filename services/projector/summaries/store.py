"""The tables `run_summaries` and `drifts`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from oa_khala.topics import USER_RUNS, Topic
from oa_platform.postgres.pool import Connection, Postgres
from services.projector.projection.app import CheckpointMoved
from services.projector.summaries.app import SummaryQuery
from services.projector.summaries.domain import (
    PROJECTION,
    VERSION,
    Codec,
    Drift,
    RunSummary,
    StoredSummary,
    SummaryWrite,
)

_ONE = "SELECT document FROM projection.run_summaries WHERE version = $1 AND run_id = $2"
"""The document of one run, by primary key."""

PAGE = """
SELECT document FROM projection.run_summaries
WHERE version = $1 AND org_id = $2 AND run_id >= $3 AND run_id < $4{conditions} ORDER BY run_id DESC LIMIT $5
"""
"""A page of an org's runs, newest first. Keyset paging: the cost of a page does not grow with its distance from the
first. `page_statement` adds the conditions."""
_AFTER_ALL_IDS = "~"
"""Comes after every run id."""

_OF_RUNS = """
SELECT run_id, document, summary_hash FROM projection.run_summaries
WHERE version = $1 AND run_id = ANY ($2::text[])
"""
"""The summaries of a batch's runs before the batch."""

_IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM projection.run_summaries WHERE version = $1)"
"""Whether there is no summary at all."""

_WRITE = """
INSERT INTO projection.run_summaries AS stored
    (version, run_id, user_id, org_id, status, latest_seq, document, summary_hash)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[], $8::bytea[])
ON CONFLICT (version, run_id) DO UPDATE SET
    user_id = excluded.user_id, org_id = excluded.org_id, status = excluded.status,
    latest_seq = excluded.latest_seq, document = excluded.document, summary_hash = excluded.summary_hash,
    updated_at = now()
WHERE stored.latest_seq < excluded.latest_seq
RETURNING run_id
"""
"""Stores the summaries after the batch; a newer summary is never overwritten."""

_OWNERS = "SELECT DISTINCT user_id FROM projection.run_summaries WHERE version = $1 AND org_id = $2"
"""Who has started runs in an org."""

_RECORD_DRIFT = """
INSERT INTO projection.drifts (projection, version, run_id, seq, stored_hash, computed_hash, computed_document)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
"""
"""Stores that a summary differs from what its events give. A drift that is found again after a restart is one row."""


def page_statement(*, of_user: bool, of_status: bool) -> str:
    """The statement of a page; with `of_user` and `of_status`, of a person's runs or of runs with a status, which come
    last of its arguments.

    It has only the conditions that apply, so an index finds its rows and gives them in order. A statement for all cases
    (`$6 IS NULL OR status = $6`) would read all runs of the org that come before those of the page.
    """
    columns = [column for column, applies in (("user_id", of_user), ("status", of_status)) if applies]
    conditions = "".join(f" AND {column} = ${number}" for number, column in enumerate(columns, start=6))
    return PAGE.format(conditions=conditions)


def id_range(prefix: str, before: str) -> tuple[str, str]:
    """The ids that begin with `prefix` and come before `before`, if it is set: from the first, up to before the second.

    Run ids end in capitals and digits, and "a" comes after those.
    """
    ends = [before] if before else []
    if prefix:
        ends.append(f"{prefix}a")
    return prefix, min(ends, default=_AFTER_ALL_IDS)


class PostgresSummaryStore:
    """`app.SummaryStore`."""

    def __init__(self, postgres: Postgres, codec: Codec) -> None:
        self._postgres = postgres
        self._codec = codec

    async def summary(self, run_id: str) -> RunSummary | None:
        """See SummaryStore."""
        async with self._postgres.acquire() as connection:
            document = await connection.fetchval(_ONE, VERSION, run_id)
        return None if document is None else self._codec.decode(document)

    async def page(self, query: SummaryQuery) -> list[RunSummary]:
        """See SummaryStore."""
        status = None if query.status is None else query.status.value
        statement = page_statement(of_user=query.user_id is not None, of_status=status is not None)
        narrowed = [value for value in (query.user_id, status) if value is not None]
        start, end = id_range(query.prefix, query.before)
        async with self._postgres.acquire() as connection:
            # Prepared anew, and so planned for these values. A plan for all values takes everybody for an average
            # person, who has a few runs: for the one who has a million it reads all of them.
            prepared = await connection.prepare(statement)
            rows = await prepared.fetch(VERSION, query.org_id, start, end, query.limit, *narrowed)
        return [self._codec.decode(row["document"]) for row in rows]


class PostgresSummaryWriter:
    """`app.SummaryWriter` on one connection that has a transaction open."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection = connection
        self._codec = codec

    async def read(self, run_ids: Collection[str]) -> dict[str, StoredSummary]:
        """Read without a lock: a run lives in one partition, and the advanced checkpoint locks that."""
        rows = await self._connection.fetch(_OF_RUNS, VERSION, list(run_ids))
        return {row["run_id"]: StoredSummary(self._codec.decode(row["document"]), row["summary_hash"]) for row in rows}

    async def write(self, writes: Sequence[SummaryWrite]) -> None:
        """Store all summaries in one statement."""
        if not writes:
            return
        summaries = [write.summary for write in writes]
        written = await self._connection.fetch(
            _WRITE,
            VERSION,
            [summary.run_id for summary in summaries],
            [summary.user_id for summary in summaries],
            [summary.org_id for summary in summaries],
            [summary.status.value for summary in summaries],
            [summary.latest_seq for summary in summaries],
            [write.document for write in writes],
            [write.summary_hash for write in writes],
        )
        if len(written) != len(writes):
            raise CheckpointMoved("a newer summary stands where this batch would write")

    async def is_empty(self) -> bool:
        """See SummaryWriter."""
        return bool(await self._connection.fetchval(_IS_EMPTY, VERSION))

    async def owners(self, org_id: str) -> list[str]:
        """See SummaryWriter."""
        return [row["user_id"] for row in await self._connection.fetch(_OWNERS, VERSION, org_id)]

    async def record(self, drifts: Sequence[Drift]) -> None:
        """Store drifts apart from the read model, which stays as it is."""
        await self._connection.executemany(
            _RECORD_DRIFT,
            [
                (
                    PROJECTION,
                    VERSION,
                    drift.run_id,
                    drift.seq,
                    drift.stored_hash,
                    drift.computed_hash,
                    drift.computed_document,
                )
                for drift in drifts
            ],
        )


_OF_ORG = """
SELECT coalesce((SELECT head FROM projection.topic_heads WHERE topic = $1), 0) AS head, ARRAY(
    SELECT document FROM projection.run_summaries WHERE version = $2 AND org_id = $3 ORDER BY run_id DESC LIMIT $4
) AS documents
"""
"""An org's newest runs ($3, $4), and the head of its topic ($1): one statement sees one moment."""

_OF_USER = _OF_ORG.replace(
    "org_id = $3", "user_id = $3 AND NOT EXISTS (SELECT FROM projection.lost_places($3, org_id))"
)
"""A person's newest runs, without those of orgs in which they have lost their place."""


class PostgresRunDocuments:
    """`journal.app.Documents`: the runs of a person or an org."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def as_of_head(self, topic: Topic, limit: int) -> tuple[int, list[bytes]]:
        """See Documents."""
        statement = _OF_USER if topic.topic_class is USER_RUNS else _OF_ORG
        async with self._postgres.acquire() as connection:
            row = await connection.fetchrow(statement, str(topic), VERSION, topic.subject_id, limit)
        assert row is not None  # the statement always returns a row
        return row["head"], list(row["documents"])
