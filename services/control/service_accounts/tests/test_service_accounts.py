"""Service accounts and their keys over the real database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_base.refusal import Refusal
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
