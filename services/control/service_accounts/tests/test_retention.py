"""API keys and service accounts that ended long ago are removed, and nothing that they ended comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.api_keys.app.keys import NewKey, Wanted
from services.control.api_keys.domain import Use
from services.control.housekeeping.limits import Retention
from services.control.policy.domain import StandingPrincipal
from services.control.tests.cases import DELETE_GRACE, ORIGIN, Cases, cases_on, reason_of

ADA = "ada@example.org"
KEPT = Retention()


async def _left(admin: Any) -> set[str]:
    keys = await admin.fetch("SELECT api_key_id AS id FROM control.api_keys")
    accounts = await admin.fetch("SELECT service_account_id AS id FROM control.service_accounts")
    return {row["id"] for row in (*keys, *accounts)}


async def _own_key(cases: Cases, person: StandingPrincipal) -> NewKey:
    return await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)


async def _sweep(cases: Cases) -> None:
    await cases.api_keys.sweep()
    await cases.api_keys.sweep_ended()
    await cases.service_accounts.sweep()


async def test_what_has_ended_is_removed_long_after_that_and_stays_refused(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ada = await cases.principal(ADA)
    (living, _), (ended, ended_text) = await cases.account(ada, "living"), await cases.account(ada, "ended")
    more = await cases.api_keys.create(ada, living.service_account_id, Wanted("more", (), 0), ORIGIN)
    own = await _own_key(cases, ada)
    for key in (more, own):
        await cases.api_keys.revoke(ada, key.key.api_key_id, ORIGIN)
    await cases.service_accounts.revoke(ada, ended.service_account_id, ORIGIN)
    before = await _left(admin)
    await clock.advance(KEPT.ended.total_seconds())
    await _sweep(cases)
    assert await _left(admin) == before, "not yet"
    await clock.advance(1)
    await _sweep(cases)
    left = await _left(admin)
    assert {one for one in left if one.startswith("sva_")} == {living.service_account_id}
    assert len(left) == 2, "and its key"
    for text in (more.text, own.text, ended_text):
        assert await reason_of(cases.api_keys.exchange(text, Use.EDGE, ORIGIN)) == "invalid_api_key"


async def test_what_operators_ended_stays_as_long_as_the_audit_log_has_it(
    control_database: Database, clock: FakeClock, admin: Any
) -> None:
    retention = Retention(timedelta(days=30), timedelta(days=90))
    async with cases_on(control_database, clock, retention=retention) as cases:
        key = await _own_key(cases, await cases.principal(ADA))
        await cases.blocks.block(ADA, ORIGIN)
        await clock.advance(retention.audited.total_seconds())
        await _sweep(cases)
        assert await _left(admin) == {key.key.api_key_id}
        await clock.advance(1)
        await _sweep(cases)
        assert await _left(admin) == set()


async def test_what_an_org_had_is_removed_long_after_the_org_is_gone(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ada = await cases.principal(ADA)
    await cases.account(ada)
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    await clock.advance(DELETE_GRACE.total_seconds())
    await cases.orgs.sweep()
    await clock.advance(KEPT.ended.total_seconds())
    await _sweep(cases)
    assert len(await _left(admin)) == 2, "not yet"
    await clock.advance(1)
    await _sweep(cases)
    assert await _left(admin) == set()


async def test_a_sweep_looks_at_a_limited_number_at_a_time(
    cases: Cases, clock: FakeClock, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("api_keys", "service_accounts"):
        monkeypatch.setattr(f"services.control.{module}.store.MAX_SWEPT_ROWS", 2)
    ada = await cases.principal(ADA)
    for _ in range(3):
        account, _ = await cases.account(ada)
        await cases.service_accounts.revoke(ada, account.service_account_id, ORIGIN)
    await clock.advance(KEPT.ended.total_seconds() + 1)
    for left in (2, 0):
        await cases.service_accounts.sweep()
        assert len(await _left(admin)) == left
    keys = [await _own_key(cases, ada) for _ in range(3)]
    for key in keys:
        await cases.api_keys.revoke(ada, key.key.api_key_id, ORIGIN)
    await clock.advance(KEPT.ended.total_seconds() + 1)
    for left in (1, 0):
        await cases.api_keys.sweep_ended()
        assert len(await _left(admin)) == left
