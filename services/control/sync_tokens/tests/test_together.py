"""Mints that come at the same time are recorded together, and each is decided by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_platform.tasks.together import Together
from oa_testing.waiting import PATIENCE_S, eventually
from services.control.policy.domain import StandingPrincipal
from services.control.sync_tokens.app import Mint, SyncToken
from services.control.sync_tokens.domain import Surface
from services.control.sync_tokens.store import PostgresMints
from services.control.tests.cases import ORIGIN, Cases

RECORDED = "SELECT actor FROM control.audit_events WHERE action = 'sync_token.minted' ORDER BY audit_id"


@pytest.fixture
def groups(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> Groups:
    groups, record = Groups(), PostgresMints.record

    async def noted(store: PostgresMints, mints: Sequence[Mint], now: datetime) -> Sequence[datetime | None]:
        groups.sizes.append(len(mints))
        await groups.allowed.wait()
        return await record(store, mints, now)

    monkeypatch.setattr(PostgresMints, "record", noted)
    monkeypatch.setattr(cases.sync_tokens, "_mints", Together(cases.sync_tokens._record_mints, late_s=PATIENCE_S))
    return groups


class Groups:
    """The sizes of the groups in which mints are recorded, once that is allowed."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.allowed = asyncio.Event()


async def minted(cases: Cases, groups: Groups, *people: StandingPrincipal) -> list[SyncToken | BaseException]:
    """What all of them get, when the first one's mint is under way before the others come."""

    def mint(one: StandingPrincipal) -> asyncio.Task[SyncToken]:
        topics = [f"user:{one.subject}:runs"]
        return asyncio.create_task(cases.sync_tokens.mint(one, topics, 0, Surface.UNSTATED, ORIGIN))

    first = mint(people[0])
    await eventually(lambda: groups.sizes == [1])
    others = [mint(one) for one in people[1:]]
    for _ in range(20):
        await asyncio.sleep(0)
    groups.allowed.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


async def test_each_mint_of_a_group_is_decided_by_itself(cases: Cases, admin: Any, groups: Groups) -> None:
    ada, bob, eve = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "eve")]
    await cases.sessions.revoke(eve, "", ORIGIN)
    first, *others = await minted(cases, groups, ada, bob, eve, ada)
    assert groups.sizes == [1, 3]
    assert isinstance(others[1], Refusal)
    assert others[1].reason == "token_revoked"
    tokens = [one.token for one in (first, others[0], others[2]) if isinstance(one, SyncToken)]
    assert len(set(tokens)) == 3
    recorded = sorted(row["actor"] for row in await admin.fetch(RECORDED))
    assert recorded == sorted([ada.subject, ada.subject, bob.subject])


async def test_who_revokes_holds_up_the_mints_of_that_org_alone(cases: Cases, admin: Any, groups: Groups) -> None:
    ada, bob = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob")]
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(control.tokens_lock($1))", ada.org_id)
        minting = asyncio.create_task(minted(cases, groups, bob, ada, bob))
        await eventually(lambda: len(groups.sizes) == 2)
        async with asyncio.timeout(PATIENCE_S):
            while len(await admin.fetch(RECORDED)) < 2:
                await asyncio.sleep(0.01)
        assert [row["actor"] for row in await admin.fetch(RECORDED)] == [bob.subject] * 2
        assert not minting.done()
    assert all(isinstance(one, SyncToken) for one in await minting)


async def test_a_mint_that_is_broken_fails_alone(cases: Cases, groups: Groups) -> None:
    ada, bob = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob")]
    broken = replace(bob, session_id=f"{bob.session_id}\0")
    good, bad, also_good = await minted(cases, groups, ada, broken, ada)
    assert groups.sizes == [1, 2]
    assert isinstance(bad, asyncpg.CharacterNotInRepertoireError)
    assert isinstance(good, SyncToken)
    assert isinstance(also_good, SyncToken)
