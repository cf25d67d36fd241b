"""Waiting mail over the real database: replicas, restarts, relays that are away, and what is too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from oa_platform.telemetry.metrics import REGISTRY
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from services.control.mail.domain.letters import RETRY, Kind, Mail, Outcome, next_try
from services.control.mail.limits import MAX_DELIVERIES, MAX_EXPIRED
from services.control.tests.cases import Cases, Letters, cases_on
from services.control.tests.harness import new_id


async def queued(cases: Cases, number: int = 1) -> None:
    """So much mail waits, for as many people."""
    now = cases.clock.now()
    async with cases.transactions.begin() as tx:
        for _ in range(number):
            mail_id = new_id("mal")
            address = f"{mail_id.lower()}@example.org"
            await tx.mail.add(Mail(mail_id, Kind.SIGN_IN_CODE, address, "chl_x", now + timedelta(minutes=10)), now)


async def waiting(admin: Any) -> int:
    return int(await admin.fetchval("SELECT count(*) FROM control.mails"))


def counted(outcome: Outcome) -> float:
    return REGISTRY.get_sample_value("oa_control_mails_total", {"outcome": outcome}) or 0.0


@asynccontextmanager
async def running(cases: Cases) -> AsyncIterator[None]:
    task = asyncio.create_task(cases.delivery.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_mail_is_queued_with_what_it_tells_of_or_not_at_all(cases: Cases, admin: Any) -> None:
    await admin.execute("REVOKE INSERT ON control.mails FROM control_app")
    with pytest.raises(Exception, match="permission denied"):
        await cases.sign_in.start("ada@example.org", new_id("dev"), cases.origin)
    assert await admin.fetchval("SELECT count(*) FROM control.challenges") == 0
    assert await admin.fetchval("SELECT count(*) FROM control.rate_limits") == 0


async def test_a_start_wakes_the_delivery(cases: Cases, admin: Any) -> None:
    async with running(cases):
        await cases.sign_in.start("ada@example.org", new_id("dev"), cases.origin)
        await eventually(lambda: "ada@example.org" in cases.letters.codes)


async def test_what_a_replica_queued_before_it_ended_another_one_delivers(
    control_database: Database, clock: FakeClock
) -> None:
    async with cases_on(control_database, clock) as one:
        started = await one.sign_in.start("ada@example.org", new_id("dev"), one.origin)
    letters = Letters()
    async with cases_on(control_database, clock, letters=letters) as other:
        await other.delivery.deliver_due()
    assert [letter.facts["challenge_id"] for letter in letters.sent] == [started.challenge_id]


async def test_several_replicas_send_each_mail_once(control_database: Database, clock: FakeClock, admin: Any) -> None:
    letters = Letters()
    async with (
        cases_on(control_database, clock, letters=letters) as one,
        cases_on(control_database, clock, letters=letters) as other,
    ):
        await queued(one, 40)
        while await waiting(admin):
            await asyncio.gather(*(cases.delivery.deliver_due() for cases in (one, other, one, other)))
    sent = [letter.mail_id for letter in letters.sent]
    assert (len(sent), len(set(sent))) == (40, 40)


async def test_a_replica_has_few_mails_on_their_way_at_a_time(cases: Cases, admin: Any) -> None:
    await queued(cases, MAX_DELIVERIES + 3)
    assert [await cases.delivery.deliver_due() for _ in range(3)] == [MAX_DELIVERIES, 3, 0]
    assert await waiting(admin) == 0


async def test_what_a_dying_replica_had_on_its_way_is_sent_by_another_later(
    cases: Cases, admin: Any, clock: FakeClock
) -> None:
    await queued(cases)
    never = asyncio.Event()
    cases.letters.held = never
    dying = asyncio.create_task(cases.delivery.deliver_due())
    await eventually(lambda: cases.letters.begun == 1)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    cases.letters.held = None
    assert await cases.delivery.deliver_due() == 0, "nobody knows yet that it died"
    await clock.advance(20)
    assert await cases.delivery.deliver_due() == 1
    assert await waiting(admin) == 0


async def test_a_relay_that_is_away_is_asked_again_until_the_mail_is_of_no_use(
    cases: Cases, admin: Any, clock: FakeClock
) -> None:
    await queued(cases)
    cases.letters.answer = Outcome.LATER
    before, tries = counted(Outcome.EXPIRED), 0
    for _ in range(599):
        tries += await cases.delivery.deliver_due()
        await clock.advance(1)
    assert 10 <= tries <= 40
    oldest = REGISTRY.get_sample_value("oa_control_mail_oldest_seconds")
    assert oldest is not None
    assert oldest >= 590
    await clock.advance(1)
    assert await cases.delivery.deliver_due() == 0
    assert await waiting(admin) == 0
    assert counted(Outcome.EXPIRED) == before + 1
    await cases.delivery.deliver_due()
    assert REGISTRY.get_sample_value("oa_control_mail_oldest_seconds") == 0


async def test_a_kind_that_only_a_newer_release_can_write_holds_nobody_up(cases: Cases, admin: Any) -> None:
    await queued(cases)
    await admin.execute("UPDATE control.mails SET kind = 'of_tomorrow'")
    await queued(cases)
    assert await cases.delivery.deliver_due() == 1
    assert await waiting(admin) == 1


async def test_what_is_refused_for_good_does_not_wait(cases: Cases, admin: Any) -> None:
    await queued(cases)
    cases.letters.answer = Outcome.REFUSED
    before = counted(Outcome.REFUSED)
    assert await cases.delivery.deliver_due() == 1
    assert await waiting(admin) == 0
    assert counted(Outcome.REFUSED) == before + 1


async def test_a_look_removes_a_limited_number_of_what_is_too_old(cases: Cases, admin: Any, clock: FakeClock) -> None:
    await admin.execute(
        "INSERT INTO control.mails SELECT n::text, 'sign_in_code', 'a@e.org', 'x', 'epoch', 'epoch', 'epoch', 0 "
        "FROM generate_series(1, $1) n",
        MAX_EXPIRED + 5,
    )
    for left in (5, 0):
        await cases.delivery.deliver_due()
        assert await waiting(admin) == left


async def test_the_delivery_survives_a_database_that_is_away(cases: Cases, admin: Any) -> None:
    failed = REGISTRY.get_sample_value("oa_control_mail_looks_failed_total") or 0.0
    await queued(cases)
    await admin.execute("ALTER TABLE control.mails RENAME TO away")
    async with running(cases):
        await eventually(lambda: (REGISTRY.get_sample_value("oa_control_mail_looks_failed_total") or 0.0) > failed)
        await admin.execute("ALTER TABLE control.away RENAME TO mails")
        await eventually(lambda: len(cases.letters.sent) == 1)


@pytest.mark.parametrize("jitter", [0.0, 0.999])
def test_the_pauses_grow_up_to_a_limit(clock: FakeClock, jitter: float) -> None:
    now = clock.now()
    pauses = [
        next_try(Mail("mal_1", Kind.SIGN_IN_CODE, "a@e.org", "x", now, attempts), now, jitter) - now
        for attempts in range(1, 60)
    ]
    assert pauses == sorted(pauses)
    assert timedelta(milliseconds=RETRY.first_ms / 2) <= pauses[0]
    assert pauses[-1] <= timedelta(milliseconds=RETRY.max_ms)
