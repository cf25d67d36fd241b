"""Service accounts and their keys over the real database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_testing.locks import until_lock_waits
from services.control.api_keys.app.keys import Wanted
from services.control.api_keys.domain import Use
from services.control.policy.domain import SERVICE_ACCOUNT_SCOPES
from services.control.service_accounts.limits import MAX_LISTED, MAX_SERVICE_ACCOUNTS
from services.control.tests.cases import ORIGIN, Cases


async def test_a_key_gives_tokens_until_it_is_revoked(cases: Cases) -> None:
    person = await cases.principal()
    account, key = await cases.account(person, "script")
    edge = await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)
    script = await cases.admitted(edge.token)
    assert (script.subject, script.org_id) == (account.service_account_id, person.org_id)
    assert script.effective_scopes == SERVICE_ACCOUNT_SCOPES
    for _ in range(2):
        await cases.service_accounts.revoke(person, account.service_account_id, ORIGIN)
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(edge.token)


@pytest.mark.parametrize("key", ["", "oak_", "oak_" + "A" * 43, "nothing of ours", "oak_" + "é" * 43])
async def test_an_unknown_key_is_refused_alike(cases: Cases, key: str) -> None:
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)


async def test_a_worker_token_is_not_taken_at_the_edge(cases: Cases) -> None:
    person = await cases.principal()
    _, key = await cases.account(person, "worker")
    worker = await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    with pytest.raises(Refusal, match="invalid_token"):
        await cases.admitted(worker.token)


async def test_another_orgs_account_is_not_found(cases: Cases) -> None:
    theirs, _ = await cases.account(await cases.principal("victim@example.org"), "theirs")
    caller = await cases.principal()
    with pytest.raises(Refusal, match="not_found"):
        await cases.service_accounts.revoke(caller, theirs.service_account_id, ORIGIN)
    assert await cases.service_accounts.list(caller) == []


async def test_an_org_has_a_limited_number_of_accounts(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    await admin.execute(
        """INSERT INTO control.service_accounts
        SELECT 'sva_' || n, $1, 'n', decode(md5(n::text), 'hex'), 'test', now() FROM generate_series(1, $2) n""",
        person.org_id,
        MAX_SERVICE_ACCOUNTS - 3,
    )
    calls = [cases.account(person, "a") for _ in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert [refusal.reason for refusal in refused] == ["limit_reached"] * 5
    assert len(results) - len(refused) == 3
    await cases.service_accounts.revoke(person, "sva_1", ORIGIN)
    await cases.account(person, "a")


async def test_the_use_of_a_revoked_key_is_on_record(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    account, key = await cases.account(person, "script")
    await cases.service_accounts.revoke(person, account.service_account_id, ORIGIN)
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    row = await admin.fetchrow("SELECT action, reason, actor FROM control.audit_events ORDER BY audit_id DESC LIMIT 1")
    assert tuple(row) == ("service_account.key_exchanged", "invalid_api_key", account.service_account_id)


async def test_the_list_has_an_end(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    await admin.execute(
        """INSERT INTO control.service_accounts
        SELECT 'sva_' || n, $1, 'n', decode(md5(n::text), 'hex'), 'test', now(), now() FROM generate_series(1, $2) n""",
        person.org_id,
        MAX_LISTED + 1,
    )
    assert len(await cases.service_accounts.list(person)) == MAX_LISTED


async def test_no_ended_account_keeps_one_that_works_from_the_list(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.control.service_accounts.store.MAX_LISTED", 2)
    person = await cases.principal()
    working, _ = await cases.account(person)
    for _ in range(2):
        await cases.service_accounts.revoke(person, (await cases.account(person))[0].service_account_id, ORIGIN)
    listed = await cases.service_accounts.list(person)
    assert working in listed
    assert len(listed) == 2


LOSSES = {
    "removed": "DELETE FROM control.memberships WHERE user_id = $1",
    "lowered": "UPDATE control.memberships SET role = 'member' WHERE user_id = $1",
    "blocked": "UPDATE control.users SET blocked_at = now() WHERE user_id = $1",
    "signed out": "UPDATE control.sessions SET revoked_at = now(), revoke_reason = 'user_requested' WHERE user_id = $1",
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_who_loses_the_role_while_the_calls_wait_changes_no_account_and_no_key(
    cases: Cases, admin: Any, loss: str
) -> None:
    person = await cases.principal()
    account, _ = await cases.account(person)
    (key,) = await cases.api_keys.list(person, account.service_account_id)
    before = await _stored(admin)
    async with admin.transaction():
        await admin.execute("SELECT FROM control.orgs FOR UPDATE")
        await admin.execute("SELECT FROM control.service_accounts FOR UPDATE")
        calls = [
            cases.account(person, "another"),
            cases.service_accounts.revoke(person, account.service_account_id, ORIGIN),
            cases.api_keys.create(person, account.service_account_id, Wanted("another"), ORIGIN),
            cases.api_keys.rotate(person, key.api_key_id, 60, ORIGIN),
            cases.api_keys.revoke(person, key.api_key_id, ORIGIN),
        ]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await until_lock_waits(admin, len(calls))
        await admin.execute(LOSSES[loss], person.subject)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    reason = "org_scope_denied" if loss == "lowered" else "not_found"
    assert [getattr(one, "reason", one) for one in outcomes] == [reason] * len(calls)
    assert await _stored(admin) == before


async def _stored(admin: Any) -> list[Any]:
    keys = await admin.fetch("SELECT api_key_id, revoked_at, replaced_by FROM control.api_keys ORDER BY api_key_id")
    accounts = await admin.fetch("SELECT service_account_id, revoked_at FROM control.service_accounts ORDER BY 1")
    return [*map(tuple, keys), *map(tuple, accounts)]
