"""The audit log over the real database: sealing by several replicas, lists, the chain, what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_platform.telemetry.metrics import REGISTRY
from oa_runlog.proof.audit import (
    AuditHead,
    VerifiedAuditLog,
    audit_event_line,
    audit_first_line,
    audit_start,
    verify_audit_log,
)
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.audit_log.app.log import AuditLog
from services.control.audit_log.app.sealer import Sealer
from services.control.audit_log.domain import Filters, Outcome, RecordedEvent, Seal
from services.control.audit_log.limits import AuditLogLimits
from services.control.audit_log.store import PostgresAuditLog, PostgresSeals
from services.control.policy.domain import Role, Scope, StandingPrincipal, role_scopes
from services.control.tests.cases import Cases, cases_on
from services.control.tests.harness import HMAC_KEY

ORG, OTHER = "org_a", "org_b"
OWNER = StandingPrincipal(PrincipalKind.USER, "usr_01JD8V0000000000000000000A", ORG)


async def recorded(
    cases: Cases, number: int, org_id: str = ORG, action: Action = Action.SIGNED_IN, **more: Any
) -> None:
    """So many events, each in a transaction of its own."""
    for index in range(number):
        entry = AuditEntry(action, Origin("req", "192.0.2.1"), org_id=org_id, **{"target": str(index), **more})
        async with cases.transactions.begin() as tx:
            await tx.audit.add(entry, cases.clock.now())


async def exported(log: AuditLog, org_id: str = ORG) -> list[bytes]:
    """The lines of the whole log."""
    part = await log.read(org_id, 0)
    lines = [audit_first_line(part.org_id, part.start)]
    while True:
        lines += [audit_event_line(event.canonical(), head.chain) for event, head in part.events]
        if not part.events or part.events[-1][1] == part.head:
            return lines
        part = await log.read(org_id, part.events[-1][1].sequence)


async def verified(cases: Cases, org_id: str = ORG, **more: Any) -> VerifiedAuditLog:
    return verify_audit_log(await exported(cases.audit_log, org_id), org_id=org_id, **more)


async def test_every_org_has_a_chain_of_its_own(cases: Cases) -> None:
    for org_id, number in ((ORG, 3), (OTHER, 2), ("", 1), (ORG, 1)):
        await recorded(cases, number, org_id)
    await cases.sealer.seal_all()
    assert {org_id: (await verified(cases, org_id)).head.sequence for org_id in (ORG, OTHER, "", "org_none")} == {
        ORG: 4,
        OTHER: 2,
        "": 1,
        "org_none": 0,
    }


async def test_a_chain_goes_on_from_seal_to_seal(cases: Cases) -> None:
    known: AuditHead | None = None
    for _ in range(3):
        await recorded(cases, 2)
        await cases.sealer.seal_all()
        found = await verified(cases, known=known)
        assert found.known_compared is (known is not None)
        known = found.head
    assert known is not None
    assert known.sequence == 6


async def test_writers_at_once_and_replicas_that_seal_make_one_chain(
    control_database: Database, clock: FakeClock, cases: Cases
) -> None:
    limits = AuditLogLimits(sealed_at_once=3)
    async with cases_on(control_database, clock) as second:
        sealers = [Sealer(each.transactions, clock, limits) for each in (cases, second)]
        done = asyncio.Event()

        async def seal(sealer: Sealer) -> None:
            while not done.is_set():
                await sealer.seal_all()

        sealing = [asyncio.create_task(seal(sealer)) for sealer in sealers]
        writers = [recorded(each, 12, org_id) for each in (cases, second) for org_id in (ORG, ORG, OTHER)]
        await asyncio.gather(*writers)
        done.set()
        await asyncio.gather(*sealing)
        await sealers[0].seal_all()
    assert (await verified(cases, ORG)).head.sequence == 48
    assert (await verified(cases, OTHER)).head.sequence == 24


async def test_what_is_committed_late_gets_the_next_place(cases: Cases) -> None:
    async with cases.transactions.begin() as tx:
        await tx.audit.add(AuditEntry(Action.SIGNED_IN, Origin(), org_id=ORG, target="late"), cases.clock.now())
        await recorded(cases, 2)
        await cases.sealer.seal_all()
        before = await verified(cases)
        assert before.head.sequence == 2
    await cases.sealer.seal_all()
    assert (await verified(cases, known=before.head)).head.sequence == 3


async def test_a_page_is_sealed_whole_or_not_at_all(cases: Cases, admin: Any) -> None:
    await recorded(cases, 3)
    await admin.execute("REVOKE DELETE ON control.audit_waiting FROM control_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await cases.sealer.seal_all()
    assert (await verified(cases)).head.sequence == 0
    await admin.execute("GRANT DELETE ON control.audit_waiting TO control_app")
    await cases.sealer.seal_all()
    assert (await verified(cases)).head.sequence == 3


async def test_a_sealer_leaves_the_work_to_the_one_that_has_it(cases: Cases) -> None:
    await recorded(cases, 1)
    async with cases.transactions.begin() as tx:
        assert await tx.seals.lock()
        await cases.sealer.seal_all()
        assert (await verified(cases)).head.sequence == 0
    await cases.sealer.seal_all()
    assert (await verified(cases)).head.sequence == 1


async def test_events_that_come_while_others_are_sealed_wait_for_the_next_time(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With events coming all the time, sealing would otherwise never end, and each transaction seal a few of them."""
    seal, pages = PostgresSeals.seal, list[int]()

    async def others_come(seals: PostgresSeals, sealed: Sequence[Seal]) -> None:
        pages.append(len(sealed))
        if len(pages) < 4:
            await recorded(cases, 2)
        await seal(seals, sealed)

    monkeypatch.setattr(PostgresSeals, "seal", others_come)
    sealer = Sealer(cases.transactions, cases.clock, AuditLogLimits(sealed_at_once=3))
    await recorded(cases, 4)
    await sealer.seal_all()
    assert pages == [3, 3, 2], "the last one is not full"
    await sealer.seal_all()
    assert pages[3:] == [2]
    assert (await verified(cases)).head.sequence == 10


async def test_a_running_sealer_goes_on_after_a_failure(cases: Cases, admin: Any) -> None:
    await admin.execute("REVOKE INSERT ON control.audit_seals FROM control_app")
    await recorded(cases, 1)
    failed = REGISTRY.get_sample_value("oa_control_audit_seals_failed_total") or 0.0
    sealer = Sealer(cases.transactions, cases.clock, AuditLogLimits(seal_interval_s=0.01))
    task = asyncio.create_task(sealer.run())
    await eventually(lambda: (REGISTRY.get_sample_value("oa_control_audit_seals_failed_total") or 0.0) > failed)
    await admin.execute("GRANT INSERT ON control.audit_seals TO control_app")
    async with asyncio.timeout(30):
        while (await verified(cases)).head.sequence < 1:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_event_that_can_not_be_read_waits_and_keeps_no_other_from_its_seal(cases: Cases, admin: Any) -> None:
    """Its row was damaged before its seal. It gets its place once somebody has put the row back."""
    await recorded(cases, 3)
    await recorded(cases, 2, OTHER)
    found = "(SELECT min(audit_id) FROM control.audit_events)"
    await admin.execute(f"UPDATE control.audit_events SET occurred_at = '20000-01-01' WHERE audit_id = {found}")  # noqa: S608
    with capture_logs() as lines:
        await cases.sealer.seal_all()
    assert [line["task"] for line in lines if line["event"] == "quarantined"] == ["audit log"]
    assert ((await verified(cases)).head.sequence, (await verified(cases, OTHER)).head.sequence) == (2, 2)
    assert await admin.fetchval("SELECT count(*) FROM control.audit_waiting") == 1

    before = (await verified(cases)).head
    await admin.execute(f"UPDATE control.audit_events SET occurred_at = now() WHERE audit_id = {found}")  # noqa: S608
    await Sealer(cases.transactions, cases.clock, AuditLogLimits()).seal_all()
    assert (await verified(cases, known=before)).head.sequence == 3


async def test_the_age_of_what_waits_is_measured(cases: Cases, clock: FakeClock) -> None:
    await recorded(cases, 1)
    await clock.advance(90)
    async with cases.transactions.begin() as tx:
        assert await tx.seals.lock()
        await cases.sealer.seal_all()
    assert REGISTRY.get_sample_value("oa_control_audit_unsealed_oldest_seconds") == 90
    await cases.sealer.seal_all()
    assert REGISTRY.get_sample_value("oa_control_audit_unsealed_oldest_seconds") == 0


# ------------------------------------------------------------------------------------------------------- rights


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control.audit_events SET actor = 'x'",
        "DELETE FROM control.audit_events",
        "UPDATE control.audit_seals SET chain = chain",
        "DELETE FROM control.audit_seals",
        "DELETE FROM control.audit_waiting",
        "TRUNCATE control.audit_waiting",
    ],
)
async def test_the_service_can_change_nothing(cases: Cases, control_database: Database, statement: str) -> None:
    await recorded(cases, 1)
    connection = await asyncpg.connect(control_database.control)
    with pytest.raises(asyncpg.PostgresError, match=r"permission denied|not sealed yet"):
        await connection.execute(statement)
    await connection.close()


async def test_whoever_may_change_rows_is_found(cases: Cases, admin: Any) -> None:
    await recorded(cases, 3)
    await cases.sealer.seal_all()
    await admin.execute("UPDATE control.audit_events SET actor = 'somebody else' WHERE target = '1'")
    with pytest.raises(Refusal) as refused:
        await verified(cases)
    assert (refused.value.reason, refused.value.metadata["seq"]) == ("chain_mismatch", "2")


async def test_whoever_removes_an_event_is_found(cases: Cases, admin: Any) -> None:
    await recorded(cases, 3)
    await cases.sealer.seal_all()
    head = (await verified(cases)).head
    await admin.execute("DELETE FROM control.audit_events WHERE target = '2'")
    with pytest.raises(Refusal) as refused:
        await verified(cases, known=head)
    assert refused.value.reason == "log_rolled_back"
    await recorded(cases, 1, target="after it")
    await cases.sealer.seal_all()
    with pytest.raises(Refusal) as refused:
        await verified(cases)
    assert refused.value.reason == "event_missing"


async def test_whoever_removes_the_oldest_is_seen_by_the_age_of_the_rest(cases: Cases, admin: Any) -> None:
    await recorded(cases, 2)
    await cases.sealer.seal_all()
    await admin.execute("DELETE FROM control.audit_events WHERE target = '0'")
    found = await verified(cases)
    assert (found.start.sequence, found.first_time[:10]) == (1, f"{cases.clock.now():%Y-%m-%d}")


async def test_whoever_rewrites_the_chain_is_found_by_those_who_hold_a_head(cases: Cases, admin: Any) -> None:
    await recorded(cases, 3)
    await cases.sealer.seal_all()
    head = (await verified(cases)).head
    await admin.execute("UPDATE control.audit_events SET actor = 'somebody else' WHERE target = '1'")
    await admin.execute("INSERT INTO control.audit_waiting SELECT audit_id FROM control.audit_seals")
    await admin.execute("DELETE FROM control.audit_seals")
    await cases.sealer.seal_all()
    await verified(cases)  # unseen by those who hold nothing
    with pytest.raises(Refusal) as refused:
        await verified(cases, known=head)
    assert refused.value.reason == "log_forked"


# -------------------------------------------------------------------------------------------------------- lists


def targets(events: Sequence[RecordedEvent]) -> list[str]:
    return [event.target for event in events]


async def test_pages_do_not_move_when_more_is_recorded(cases: Cases) -> None:
    await recorded(cases, 5)
    first = await cases.audit_log.list(ORG, Filters(), size=2)
    await recorded(cases, 3, target="later")
    second = await cases.audit_log.list(ORG, Filters(), size=2, below_id=first.next_below)
    third = await cases.audit_log.list(ORG, Filters(), size=2, below_id=second.next_below)
    assert [targets(page.events) for page in (first, second, third)] == [["4", "3"], ["2", "1"], ["0"]]
    assert third.next_below == 0


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(actor="usr_a"), ["a"]),
        (Filters(action="call.denied"), ["refused"]),
        (Filters(target="a"), ["a"]),
        (Filters(outcome=Outcome.REFUSED), ["refused"]),
        (Filters(outcome=Outcome.DONE), ["late", "revoked", "a"]),
        (Filters(actor="usr_none"), []),
    ],
)
async def test_a_list_is_filtered(cases: Cases, filters: Filters, found: list[str]) -> None:
    await _four(cases)
    assert targets((await cases.audit_log.list(ORG, filters)).events) == found


async def _four(cases: Cases) -> None:
    await recorded(cases, 1, target="a", actor="usr_a")
    await recorded(cases, 1, action=Action.CALL_DENIED, target="refused", reason="missing_scope")
    await recorded(cases, 1, action=Action.SESSION_REVOKED, target="revoked", reason="user_requested")
    await recorded(cases, 1, target="late")
    await recorded(cases, 1, OTHER, target="of another org", actor="usr_a")


async def test_a_list_has_a_range_of_time(cases: Cases, clock: FakeClock) -> None:
    await recorded(cases, 1, target="early")
    await clock.advance(60)
    since = clock.now()
    await recorded(cases, 1, target="then")
    await clock.advance(60)
    await recorded(cases, 1, target="late")
    until = clock.now()
    listed = cases.audit_log.list
    assert targets((await listed(ORG, Filters(since=since))).events) == ["late", "then"]
    assert targets((await listed(ORG, Filters(until=until))).events) == ["then", "early"]
    assert targets((await listed(ORG, Filters(since=since, until=until))).events) == ["then"]


async def test_a_page_looks_at_a_bounded_number_of_events(cases: Cases) -> None:
    await recorded(cases, 1, target="sought", actor="usr_a")
    await recorded(cases, 5)
    log = AuditLog(cases.transactions, AuditLogLimits(looked_at=3), HMAC_KEY.encode())
    first = await log.list(ORG, Filters(actor="usr_a"))
    assert first.events == []
    assert first.next_below
    second = await log.list(ORG, Filters(actor="usr_a"), below_id=first.next_below)
    assert targets(second.events) == ["sought"]
    third = await log.list(ORG, Filters(actor="usr_a"), below_id=second.next_below)
    assert (third.events, third.next_below) == ([], 0)


async def test_a_person_sees_what_concerns_that_person_in_every_org(cases: Cases) -> None:
    me = OWNER.subject
    await recorded(cases, 1, target="mine", actor=me)
    await recorded(cases, 1, OTHER, target=me, actor="usr_admin")
    await recorded(cases, 1, OTHER, target="nobody's of mine", actor="usr_admin")
    await recorded(cases, 1, OTHER, target=me, actor=me)
    first = await cases.audit_log.own(OWNER, size=2)
    assert [(event.target, event.network) for event in first.events] == [(me, "192.0.2.1"), (me, "")]
    second = await cases.audit_log.own(OWNER, size=2, below_id=first.next_below)
    assert (targets(second.events), second.next_below) == (["mine"], 0)


async def test_the_chain_is_read_in_parts(cases: Cases) -> None:
    await recorded(cases, 5)
    await cases.sealer.seal_all()
    log = AuditLog(cases.transactions, AuditLogLimits(chain_items=2), HMAC_KEY.encode())
    assert verify_audit_log(await exported(log)).count == 5
    assert len((await log.read(ORG, 2)).events) == 2
    with pytest.raises(Refusal) as refused:
        await log.read(ORG, 6)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "after_sequence")


async def test_what_is_dropped_while_it_is_read_is_no_hole(cases: Cases, admin: Any) -> None:
    """The start was read, then the oldest are dropped, then the events are read: it is read once more."""
    await recorded(cases, 3)
    await aged(admin, 100, "0", "1")
    await cases.sealer.seal_all()

    class Dropping(PostgresAuditLog):
        async def start(self, org_id: str, after_sequence: int) -> AuditHead | None:
            start = await super().start(org_id, after_sequence)
            await admin.execute("SELECT control.drop_audit_events(now() - interval '90 days', 100)")
            return start

    class Interrupted:
        @asynccontextmanager
        async def begin(self) -> AsyncIterator[SimpleNamespace]:
            async with cases.transactions.begin() as tx:
                yield SimpleNamespace(audit_log=Dropping(tx.audit_log._connection))

        autocommit = begin

    part = await AuditLog(Interrupted(), AuditLogLimits(), HMAC_KEY.encode()).read(ORG, 0)
    assert (part.start.sequence, len(part.events), part.begins_late) == (2, 1, False)


# ---------------------------------------------------------------------------------------------------- retention


def sealer_for(cases: Cases, days: int, at_once: int = 1000) -> Sealer:
    limits = AuditLogLimits(kept_for=timedelta(days=days), dropped_at_once=at_once)
    return Sealer(cases.transactions, cases.clock, limits)


async def aged(admin: Any, days: int, *targets: str) -> None:
    """The clock of the database can't be moved, so events are recorded at an earlier time before they are sealed."""
    statement = "UPDATE control.audit_events SET occurred_at = now() - make_interval(days => $1) WHERE target = ANY($2)"
    await admin.execute(statement, days, targets)


@pytest.fixture
def clock() -> FakeClock:
    """At the time that the database has: it counts the age of events, too."""
    return FakeClock(SystemClock().now())


async def test_what_is_old_goes_and_the_rest_verifies_from_there(cases: Cases, admin: Any) -> None:
    await recorded(cases, 5)
    await recorded(cases, 1, OTHER, target="other")
    await aged(admin, 100, "0", "1", "other")
    await cases.sealer.seal_all()
    head = (await verified(cases)).head
    other = (await verified(cases, OTHER)).head
    await sealer_for(cases, 90).sweep()
    found = await verified(cases, known=head)
    assert (found.start.sequence, found.head, found.known_compared) == (2, head, True)
    assert targets((await cases.audit_log.list(ORG, Filters())).events) == ["4", "3", "2"]
    gone = await verified(cases, OTHER, known=other)
    assert (gone.start, gone.head, gone.known_compared) == (other, other, True)
    await recorded(cases, 1, OTHER)
    await cases.sealer.seal_all()
    assert (await verified(cases, OTHER, known=other)).head.sequence == 2
    assert not (await verified(cases, known=audit_start(ORG))).known_compared


async def test_a_chain_gets_no_hole_when_a_younger_event_stands_before_older_ones(cases: Cases, admin: Any) -> None:
    await recorded(cases, 4)
    await aged(admin, 100, "0", "2", "3")
    await cases.sealer.seal_all()
    await sealer_for(cases, 90).sweep()
    found = await verified(cases)
    assert (found.start.sequence, found.count) == (1, 3)


async def test_a_sweep_drops_a_bounded_number(cases: Cases, admin: Any) -> None:
    await recorded(cases, 5)
    await aged(admin, 100, *map(str, range(5)))
    await cases.sealer.seal_all()
    for left in (3, 1, 0):
        await sealer_for(cases, 90, at_once=2).sweep()
        found = await verified(cases)
        assert (found.count, found.head.sequence) == (left, 5)


async def test_what_has_no_seal_yet_stays(cases: Cases, admin: Any) -> None:
    await recorded(cases, 2)
    await aged(admin, 100, "0", "1")
    await sealer_for(cases, 90).sweep()
    await cases.sealer.seal_all()
    assert (await verified(cases)).count == 2


async def test_nobody_who_has_the_service_drops_the_last_thirty_days(cases: Cases, admin: Any) -> None:
    await recorded(cases, 2)
    await aged(admin, 29, "0", "1")
    await cases.sealer.seal_all()
    await sealer_for(cases, -1000).sweep()
    assert (await verified(cases)).count == 2


async def test_two_sweeps_at_once_are_one(control_database: Database, cases: Cases, admin: Any) -> None:
    await recorded(cases, 6)
    await aged(admin, 100, *map(str, range(5)))
    await cases.sealer.seal_all()
    async with cases_on(control_database, cases.clock) as second:
        await asyncio.gather(*(sealer_for(each, 90).sweep() for each in (cases, second, cases, second)))
    found = await verified(cases)
    assert (found.start.sequence, found.count) == (5, 1)


def test_owners_and_admins_read_it() -> None:
    assert {role for role in Role if Scope.AUDIT_READ in role_scopes(role)} == {Role.OWNER, Role.ADMIN}
