"""No statement of a service takes time in proportion to what the service has done in years: neither by a plan that is
made then, nor by one that was made when there was nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg
import pytest

from oa_platform.postgres.pool import PLANNING
from oa_testing.postgres import Database
from services.projector.summaries.store import page_statement
from services.runtime.log.store.sql import READ_RUN_INDEXED_NEWEST, READ_RUN_INDEXED_TYPES, store_batch
from tests.plans.planner import Plan, Planner, Tables, complaints, fill, statements_of


@dataclass(frozen=True)
class Case:
    """A service, the tables that stay small whatever its age, and the statements that its functions build."""

    service: str
    schema: str
    small: tuple[str, ...]
    built: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, list[str]] = field(default_factory=dict)
    """Statement -> complaints that are none."""
    early: Mapping[str, list[str]] = field(default_factory=dict)
    """Statement -> complaints about plans of the first minutes, of statements that are seldom carried out."""


def _told(first: int) -> str:
    return f"pg_notify('runtime_log', ${first})"


_SOMETIMES = "has a condition on {} that applies to some arguments only"
_TIMES = "compares with a time that changes: {} of runs"
CASES = (
    Case(
        "control",
        "control",
        ("audit_waiting", "canaries", "canary_samples", "mails", "route_head", "route_versions", "signing_keys"),
        known={
            # It looks at a bounded number of events: those down to its lowest id.
            "services.control.audit_log.store.LISTED": [_SOMETIMES.format("audit_events")],
            # All sessions of an org, or those of one person: the index has those of the org that have not ended.
            "services.control.sessions.store.FALL_BACK": [_SOMETIMES.format("sessions")],
        },
        early={
            # Asked for by operators and at deletions, by a gauge, and by housekeeping.
            "services.control.blocks.store.BY_EMAIL": ["joins past an index: user_id of sessions"],
            "services.control.blocks.store.PERSON": ["joins past an index: user_id of sessions"],
            "services.control.audit_log.store.BACKLOG": ["reads all of audit_events_pkey"],
            "services.control.sessions.store.SWEEP": ["reads all of sessions"],
        },
    ),
    Case(
        "runtime",
        "runtime",
        (
            "installation",
            "log_epochs",
            "log_floors",
            "log_heads",
            "receipt_key_endorsements",
            "receipt_keys",
            "receipts_unmerged",
            "replicas",
        ),
        built={f"store_batch({more})": store_batch(_told, more=more) for more in (False, True)},
        known={
            # All schedules of an owner, or those in one org: an org has a hundred at most.
            "services.runtime.schedules.store.sql.ACTIVE_OF": [_SOMETIMES.format("schedules")],
            # It counts the runs that wait.
            "services.runtime.workers.store.sql.READ_WAITING": [_TIMES.format("not_before_time")],
        },
    ),
    Case(
        "projector",
        "projection",
        ("checkpoints", "drifts", "workers"),
        built={
            f"page_statement({of_user}, {of_status})": page_statement(of_user=of_user, of_status=of_status)
            for of_user, of_status in itertools.product((False, True), repeat=2)
        },
    ),
)


ALL_FOUND = {"events_shown", "events_asked_for"}
"""The indexes that find events in a run by their types."""


@pytest.mark.parametrize("statement", [READ_RUN_INDEXED_TYPES, READ_RUN_INDEXED_NEWEST])
async def test_what_workers_ask_for_is_found_among_a_million_events_of_a_run(
    statement: str, runtime_database: Database
) -> None:
    owner = await asyncpg.connect(runtime_database.admin, server_settings=PLANNING)
    try:
        planner = Planner(owner, "runtime")
        assert _indexes(await planner.plan(statement)) == ALL_FOUND, "made when there was nothing"
        await fill(owner, "runtime", CASES[1].small)
        await owner.execute("UPDATE runtime.events SET run_id = '1', type = 'text.delta'; ANALYZE runtime.events")
        assert _indexes(await planner.plan(statement)) == ALL_FOUND
    finally:
        await owner.close()


def _indexes(plan: Plan) -> set[str]:
    below = [_indexes(part) for part in plan.get("Plans", ())]
    return {plan["Index Name"]} if "Index Name" in plan else set().union(*below)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.service)
async def test_every_statement_finds_its_rows_by_an_index(case: Case, database: Database) -> None:
    statements = {**statements_of(f"services.{case.service}"), **case.built}
    owner = await asyncpg.connect(database.admin, server_settings=PLANNING)
    try:
        planner = Planner(owner, case.schema)
        early = {name: await planner.plan(sql) for name, sql in statements.items()}
        await fill(owner, case.schema, case.small)
        late = {name: await planner.plan(sql) for name, sql in statements.items()}
        tables = await planner.tables()
    finally:
        await owner.close()
    assert len(statements) > 20
    assert _complaints(late, tables) == case.known
    assert _complaints(early, tables) == {**case.known, **case.early}


def _complaints(plans: Mapping[str, Plan], tables: Tables) -> dict[str, list[str]]:
    found = {name: list(complaints(plan, tables)) for name, plan in plans.items()}
    return {name: said for name, said in found.items() if said}


_SCANS = """
SELECT sum(pg_stat_get_xact_numscans(name::regclass))::integer
FROM unnest(ARRAY['control.audit_events', 'control.audit_seals']) AS name
"""


async def test_dropping_old_audit_events_reads_no_table_as_a_whole(database: Database) -> None:
    """The statement is inside of a function of the database, so its plan is not to be had: what it did is counted."""
    owner = await asyncpg.connect(database.admin)
    try:
        await fill(owner, "control", CASES[0].small)
        await owner.execute("UPDATE control.audit_events SET occurred_at = occurred_at - interval '1 year'; ANALYZE")
        async with owner.transaction():
            before = await owner.fetchval(_SCANS)  # the update's own may still be in it
            assert await owner.fetchval("SELECT control.drop_audit_events(now(), 10)") == 10
            assert await owner.fetchval(_SCANS) == before
    finally:
        await owner.close()
