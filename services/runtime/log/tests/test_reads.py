"""What is asked of a run's events by their types is found, whatever else there is of the run."""

from __future__ import annotations

import random
from typing import Any

import asyncpg
import pytest

from oa_platform.postgres.pool import Postgres
from oa_runlog.events import EventType
from oa_testing.postgres import Database, patient_settings
from oa_worker.agents.primitives import checkpoints, children, requests
from oa_worker.agents.primitives.takeover import past
from services.runtime.log.store import sql
from services.runtime.log.store.reads import PostgresReads

RUN = "run_01JD8V0000000000000000000A"
ASKED_BY_WORKERS = [
    [EventType.INPUT_RECEIVED],
    [checkpoints._TYPE],
    children._TYPES,
    past._ASKED_FOR,
    requests._TYPES,
]
EVENTS = """
INSERT INTO runtime.events (partition, position, run_id, seq, type, body, chain, recorded_at)
SELECT 0, seq, $1, seq, type, convert_to(type || seq, 'UTF8'), sha256(''), now()
FROM unnest($2::text[]) WITH ORDINALITY AS e (type, seq)
"""
NO_STATEMENT = "SELECT 1 / 0"


async def fill(database: Database, types: list[str]) -> None:
    connection = await asyncpg.connect(database.admin)
    await connection.execute(EVENTS, RUN, types)
    await connection.close()


@pytest.mark.parametrize("types", ASKED_BY_WORKERS, ids=" ".join)
async def test_what_workers_ask_for_is_found_by_its_type(
    runtime_database: Database, monkeypatch: pytest.MonkeyPatch, types: list[str]
) -> None:
    """A run may have a million other events."""
    await fill(runtime_database, ["run.created", *types, "text.delta"])
    monkeypatch.setattr(sql, "READ_RUN_TYPES", NO_STATEMENT)
    monkeypatch.setattr(sql, "READ_RUN_NEWEST", NO_STATEMENT)
    async with Postgres(patient_settings(runtime_database.runtime), "test") as postgres:
        reads = PostgresReads(postgres)
        found = await reads.events_of_types(RUN, 0, types, 100, 1 << 20)
        assert [body.decode() for body in found] == [f"{type_}{seq}" for seq, type_ in enumerate(types, start=2)]
        assert await reads.newest_of_types(RUN, 0, types) == found[-1]


async def test_both_ways_of_reading_give_the_same(runtime_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    kinds = [*sorted(sql.INDEXED_TYPES), "text.delta"]
    await fill(runtime_database, chance.choices(kinds, k=300))
    asked = [chance.sample(sorted(sql.INDEXED_TYPES), chance.randint(1, 4)) for _ in range(20)]
    bounds = [(chance.randint(0, 300), chance.randint(1, 20), chance.randint(1, 200)) for _ in asked]

    async def read(reads: PostgresReads) -> list[Any]:
        return [
            (
                await reads.events_of_types(RUN, after, [*types, types[0]], events, size),
                await reads.newest_of_types(RUN, after, types),
            )
            for types, (after, events, size) in zip(asked, bounds, strict=True)
        ]

    async with Postgres(patient_settings(runtime_database.runtime), "test") as postgres:
        by_index = await read(PostgresReads(postgres))
        monkeypatch.setattr(sql, "INDEXED_TYPES", frozenset())
        assert by_index == await read(PostgresReads(postgres))
    assert any(pages for pages, _ in by_index)
