"""A revocation ends every token from before it, also those of a replica whose clock is ahead."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from oa_platform.auth.keys import generate_key
from oa_platform.config.shared import CLOCK_LEEWAY_MS, ClockSettings
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.api_keys.domain import Use
from services.control.sync_tokens.domain import Surface
from services.control.tests.cases import ORIGIN, Cases, cases_on

ENDED_BEFORE = "SELECT max(issued_before) FROM control.revocations"
ADD_MEMBER = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, 'member', now())"
AHEAD_S = 1.5


def issued_s(token: str) -> float:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return float(int(claims["iat"]) + claims.get("iat_ms", 0) / 1000)


@pytest_asyncio.fixture
async def replicas(control_database: Database, clock: FakeClock) -> AsyncIterator[tuple[Cases, Cases]]:
    """Two of them; the second one's clock is ahead."""
    key, fast = generate_key(), FakeClock()
    await fast.advance(AHEAD_S)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(cases_on(control_database, clock, key))
        yield one, await stack.enter_async_context(cases_on(control_database, fast, key, one.letters))


async def test_a_block_ends_a_worker_token_of_a_fast_replica(replicas: tuple[Cases, Cases], admin: Any) -> None:
    one, fast = replicas
    account, key = await one.account(await one.principal())
    issued = await fast.api_keys.exchange(key, Use.WORKER, ORIGIN)
    await one.blocks.block(account.service_account_id, ORIGIN)
    assert issued_s(issued.token) < (await admin.fetchval(ENDED_BEFORE)).timestamp()


async def test_a_revocation_looks_at_a_limited_number_of_events(
    replicas: tuple[Cases, Cases], clock: FakeClock, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, fast = replicas
    account, key = await one.account(await one.principal())
    for replica in (fast, one):
        await replica.api_keys.exchange(key, Use.WORKER, ORIGIN)
    for limit, after in ((1, 0.0), (2, AHEAD_S)):
        monkeypatch.setattr("services.control.revocations.store.MAX_LATEST_EVENTS", limit)
        await one.blocks.block(account.service_account_id, ORIGIN)
        await one.blocks.unblock(account.service_account_id, ORIGIN)
        ended = await admin.fetchval(ENDED_BEFORE) - clock.now()
        assert ended.total_seconds() == pytest.approx(after, abs=1e-5)


@pytest.mark.parametrize("loss", ["removed", "org deleted"])
async def test_what_ends_in_an_org_ends_a_sync_token_of_a_fast_replica(
    replicas: tuple[Cases, Cases], admin: Any, loss: str
) -> None:
    one, fast = replicas
    owner, member = await one.principal(), await one.signed_in("bob@example.org")
    org_id = (await one.orgs.create(owner, "team", ORIGIN)).org.org_id
    await admin.execute(ADD_MEMBER, org_id, member.user.user_id)
    await one.sessions.switch(await one.admitted(member.tokens.access_token), org_id, ORIGIN)
    tokens = await one.sessions.refresh(member.tokens.refresh_token, member.session.device_id, ORIGIN)
    bob = await fast.admitted(tokens.access_token)
    minted = await fast.sync_tokens.mint(bob, [f"org:{org_id}:runs"], 0, Surface.UNSTATED, ORIGIN)
    if loss == "removed":
        await one.members.remove(owner, org_id, member.user.user_id, ORIGIN)
    else:
        await one.orgs.delete(owner, org_id, ORIGIN)
    assert issued_s(minted.token) < (await admin.fetchval(ENDED_BEFORE)).timestamp()


@pytest.mark.parametrize("leeway_ms", [CLOCK_LEEWAY_MS, 60_000])
async def test_a_clock_that_is_wrong_by_more_ends_nothing_of_later(
    control_database: Database, clock: FakeClock, admin: Any, leeway_ms: int
) -> None:
    async with cases_on(control_database, clock, clocks=ClockSettings(leeway_ms=leeway_ms)) as cases:
        await _ends_up_to(cases, clock, admin, timedelta(milliseconds=2 * leeway_ms))


async def _ends_up_to(cases: Cases, clock: FakeClock, admin: Any, lead: timedelta) -> None:
    account, key = await cases.account(await cases.principal())

    async def ended_before(ahead: timedelta) -> datetime:
        await admin.execute(
            "INSERT INTO control.audit_events (occurred_at, action, reason, actor, org_id, target, network, request_id)"
            " VALUES ($1, 'service_account.key_exchanged', '', $2, '', '', '', '')",
            clock.now() + ahead,
            account.service_account_id,
        )
        await cases.blocks.block(account.service_account_id, ORIGIN)
        await cases.blocks.unblock(account.service_account_id, ORIGIN)
        ended: datetime = await admin.fetchval(ENDED_BEFORE)
        return ended

    assert await ended_before(lead + timedelta(microseconds=1)) == clock.now()
    assert await ended_before(lead) == clock.now() + lead + timedelta(microseconds=1)
    await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
