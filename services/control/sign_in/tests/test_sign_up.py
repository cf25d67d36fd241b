"""Who may sign up: by rule, without telling a stranger who is here."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.config.loading import load
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.audit.domain import address_digest
from services.control.config import SignInSettings
from services.control.policy.domain import Role
from services.control.sign_in.domain.challenge import code_of
from services.control.sign_in.domain.sign_up import Knock, SignUp, SignUpRule, is_welcome
from services.control.tests.cases import ORIGIN, Cases, cases_on
from services.control.tests.harness import HMAC_KEY, new_id

RULE = SignUpRule(SignUp.DOMAINS, frozenset({"corp.example"}))


@pytest_asyncio.fixture
async def closed(control_database: Database, clock: FakeClock) -> AsyncIterator[Cases]:
    async with cases_on(control_database, clock, sign_up=RULE) as made:
        yield made


def test_the_table_of_all_who_knock() -> None:
    flags = itertools.product((False, True), repeat=4)
    for mode, (known, blocked, invited, ours) in itertools.product(SignUp, flags):
        email = f"ada@{'corp.example' if ours else 'else.example'}"
        rule = SignUpRule(mode, RULE.domains)
        may_sign_up = mode is SignUp.OPEN or invited or (mode is SignUp.DOMAINS and ours)
        expected = not blocked if known else may_sign_up
        assert is_welcome(rule, Knock(email, known=known, blocked=blocked, invited=invited)) == expected


@pytest.mark.parametrize("email", ["a@sub.corp.example", "a@corp.example.evil.test", "corp.example@evil.test"])
def test_a_domain_is_meant_whole(email: str) -> None:
    assert not is_welcome(RULE, Knock(email, known=False, blocked=False, invited=False))


async def test_a_stranger_of_another_domain_is_answered_like_anybody_and_gets_no_code(
    closed: Cases, admin: Any
) -> None:
    device = new_id("dev")
    welcome = await closed.started(" Ada@CORP.example ", device)
    other = await closed.started("eve@else.example", device)
    assert (other.expires_at, other.resend_after) == (welcome.expires_at, welcome.resend_after)
    facts = {letter.facts["challenge_id"]: letter.facts for letter in closed.letters.sent}
    assert "code" in facts[welcome.challenge_id]
    assert "code" not in facts[other.challenge_id]
    for guess in ("12345678", code_of(HMAC_KEY.encode(), other.challenge_id)):
        with pytest.raises(Refusal, match="code_incorrect"):
            await closed.sign_in.verify(other.challenge_id, guess, device, ORIGIN)
    rows = await admin.fetch("SELECT target FROM control.audit_events WHERE reason = 'not_welcome'")
    assert [row["target"] for row in rows] == [address_digest(HMAC_KEY.encode(), "eve@else.example")]
    assert await admin.fetchval("SELECT count(*) FROM control.users") == 0


async def test_whoever_is_invited_or_here_already_gets_in(closed: Cases, admin: Any) -> None:
    ada = await closed.admitted((await closed.signed_in("ada@corp.example")).tokens.access_token)
    org_id = (await closed.orgs.create(ada, "team", ORIGIN)).org.org_id
    await closed.invitations.create(ada, org_id, "guest@else.example", Role.MEMBER, ORIGIN)
    await closed.delivery.deliver_due()
    await closed.signed_in("guest@else.example")
    await admin.execute("UPDATE control.users SET email = 'ada@else.example' WHERE email = 'ada@corp.example'")
    await closed.signed_in("ada@else.example")


def test_the_domains_are_set_in_any_spelling() -> None:
    env = {"OA_SIGN_UP": "domains", "OA_SIGN_UP_DOMAINS": "Corp.Example, bücher.example"}
    assert load(SignInSettings, env).rule().domains == {"corp.example", "xn--bcher-kva.example"}


@pytest.mark.parametrize("domains", ["", "a b", "x@corp.example", "corp..example"])
def test_a_rule_that_cannot_be_meant_stops_the_start(domains: str) -> None:
    env = {"OA_SIGN_UP": "domains"} | ({"OA_SIGN_UP_DOMAINS": domains} if domains else {})
    with pytest.raises(Refusal, match="OA_SIGN_UP_DOMAINS"):
        load(SignInSettings, env)
