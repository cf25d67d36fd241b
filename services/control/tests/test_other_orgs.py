"""Whatever anybody does, what belongs to another org stays there."""

from __future__ import annotations

import random

import pytest

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.api_keys.domain import Use
from services.control.sync_tokens.domain import Surface
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id


async def test_no_sequence_of_calls_gives_anything_in_another_org(cases: Cases, clock: FakeClock) -> None:
    """A random walk of people who try everything on each other; the model is: whose is it."""
    chance = random.Random(20261122)
    people = [await cases.principal(f"p{number}@example.org") for number in range(4)]
    accounts: dict[str, tuple[str, str]] = {}
    cases.runs.orgs = {new_id("run"): person.org_id for person in people for _ in range(2)}
    for _ in range(150):
        me, other = chance.choice(people), chance.choice(people)
        match chance.randrange(5):
            case 0:
                account, key = await cases.account(me, "a")
                accounts[account.service_account_id] = (account.org_id, key)
            case 1 if accounts:
                target = chance.choice(list(accounts))
                if accounts[target][0] == me.org_id:
                    await cases.service_accounts.revoke(me, target, ORIGIN)
                    del accounts[target]
                else:
                    with pytest.raises(Refusal, match="not_found"):
                        await cases.service_accounts.revoke(me, target, ORIGIN)
            case 2:
                found = {account.org_id for account in await cases.service_accounts.list(me)}
                assert found <= {me.org_id}
            case 3:
                run_id, owner = chance.choice(list(cases.runs.orgs.items()))
                topics = [f"run:{run_id}:events", f"user:{other.subject}:runs", f"org:{other.org_id}:runs"]
                try:
                    minted = await cases.sync_tokens.mint(me, topics, 0, Surface.UNSTATED, ORIGIN)
                    granted = [grant.reason is None for grant in minted.grants]
                except Refusal:
                    granted = [False] * 3
                assert granted == [owner == me.org_id, other is me, other is me]
            case _ if accounts:
                target = chance.choice(list(accounts))
                org_id, key = accounts[target]
                script = await cases.admitted((await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token)
                assert script.org_id == org_id
                with pytest.raises(Refusal, match="not_found"):  # an account is no member of its org
                    await cases.account(script, "from a key")
            case _:
                await clock.advance(1)
