"""Signing in with a real provider over the real database: who gets in, once, and what is left behind."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_testing.clock import FakeClock
from oa_testing.locks import until_lock_waits
from oa_testing.postgres import Database
from services.control.audit.domain import Origin
from services.control.policy.domain import Role
from services.control.provider_sign_in.app import Started
from services.control.provider_sign_in.domain import (
    Identity,
    ProviderRule,
    Refused,
    asked,
    first_refused,
    may_redirect,
)
from services.control.provider_sign_in.door.oidc import OidcProvider
from services.control.provider_sign_in.limits import SIGN_IN_TTL
from services.control.provider_sign_in.tests.openid import REDIRECT, OpenId, claims_of, signed
from services.control.sign_in.app import SignedIn
from services.control.sign_in.domain.challenge import code_of
from services.control.sign_in.domain.sign_up import Knock, SignUp, SignUpRule
from services.control.tests.cases import LIMITS, ORIGIN, Cases, cases_on
from services.control.tests.harness import HMAC_KEY, new_id

DEVICE = new_id("dev")
ADA = "ada@example.org"
LEFT_BEHIND = "SELECT (SELECT count(*) FROM control.challenges) + (SELECT count(*) FROM control.mails)"


async def started(cases: Cases, device: str = DEVICE, network: str = "192.0.2.1") -> Started:
    return await cases.provider_sign_in.start("oidc", device, REDIRECT, Origin("req", network))


async def finished(cases: Cases, begun: Started, code: str, **changes: str) -> SignedIn:
    given = {"device_id": DEVICE, "state": begun.state} | changes
    return await cases.provider_sign_in.finish(begun.begun.sign_in_id, code=code, origin=ORIGIN, **given)


async def signed_in(cases: Cases, openid: OpenId, device: str = DEVICE) -> SignedIn:
    begun = await started(cases, device)
    brought = await asyncio.to_thread(openid.page, begun.authorization_url)
    return await finished(cases, begun, brought["code"], state=brought["state"], device_id=device)


async def refused(cases: Cases, openid: OpenId) -> str:
    with pytest.raises(Refusal) as refusal:
        await signed_in(cases, openid)
    return refusal.value.reason


async def test_where_codes_are_turned_off_no_address_gets_one_and_none_is_good_any_more(
    control_database: Database, people: Cases, oidc: OidcProvider, openid: OpenId, admin: Any
) -> None:
    begun = await people.started("ada@linked.example", DEVICE)
    code = code_of(HMAC_KEY.encode(), begun.challenge_id)
    before = await admin.fetchval(LEFT_BEHIND)
    rule = ProviderRule(link_domains=frozenset({"example.org"}), codes_too=False)
    async with cases_on(control_database, SystemClock(), providers={"oidc": oidc}, provider_rule=rule) as strict:
        known = await signed_in(strict, openid)
        said = set()
        for address in (known.user.email, "nobody@example.org", "no address"):
            with pytest.raises(Refusal) as refusal:
                await strict.sign_in.start(address, DEVICE, ORIGIN)
            said.add((refusal.value.reason, refusal.value.message, tuple(refusal.value.metadata.items())))
        with pytest.raises(Refusal, match="unknown_method"):
            await strict.sign_in.verify(begun.challenge_id, code, DEVICE, ORIGIN)
        assert (await strict.sessions.refresh(known.tokens.refresh_token, DEVICE, ORIGIN)).access_token
    [(reason, message, metadata)] = said
    assert (reason, metadata) == ("unknown_method", (("providers", "oidc"),))
    assert "oidc" in message
    assert await admin.fetchval(LEFT_BEHIND) == before, "nothing is sent or stored"
    assert (await people.sign_in.verify(begun.challenge_id, code, DEVICE, ORIGIN)).new_user, "the code was good"


async def trail(admin: Any) -> list[tuple[str, str, str]]:
    rows = await admin.fetch("SELECT action, target, reason FROM control.audit_events ORDER BY audit_id")
    return [(row["action"], row["target"], row["reason"]) for row in rows]


async def test_a_person_comes_by_a_provider_and_stays_the_same(people: Cases, openid: OpenId, admin: Any) -> None:
    first = await signed_in(people, openid)
    assert (first.new_user, first.user.email) == (True, ADA)
    assert (await people.admitted(first.tokens.access_token)).subject == first.user.user_id
    assert (await people.sessions.refresh(first.tokens.refresh_token, DEVICE, ORIGIN)).access_token
    # The address at the provider changes, and isn't verified any more: the account stays.
    openid.users["ada"] = {"email": "countess@example.org", "email_verified": False}
    again = await signed_in(people, openid, new_id("dev"))
    assert (again.new_user, again.user) == (False, first.user)
    assert await trail(admin) == [
        ("provider_sign_in.started", "oidc", ""),
        ("identity.linked", first.user.user_id, ""),
        ("provider_sign_in.finished", "oidc", ""),
        ("session.signed_in", first.session.session_id, ""),
        ("session.refreshed", first.session.session_id, ""),
        ("provider_sign_in.started", "oidc", ""),
        ("provider_sign_in.finished", "oidc", ""),
        ("session.signed_in", again.session.session_id, ""),
    ]
    # The address is the account's for a code, too.
    assert (await people.signed_in(ADA)).user == first.user


async def test_one_answer_is_one_session_on_any_replica(
    control_database: Database, oidc: OidcProvider, openid: OpenId, admin: Any
) -> None:
    clock = SystemClock()
    async with (
        cases_on(control_database, clock, providers={"oidc": oidc}) as one,
        cases_on(control_database, clock, providers={"oidc": OidcProvider(oidc._client, clock)}) as other,
    ):
        begun = await started(one)
        code = (await asyncio.to_thread(openid.page, begun.authorization_url))["code"]
        tries = [finished((one, other)[number % 2], begun, code) for number in range(6)]
        results = await asyncio.gather(*tries, return_exceptions=True)
    reasons = sorted(result.reason for result in results if isinstance(result, Refusal))
    assert reasons == ["challenge_expired"] * 5
    assert await admin.fetchval("SELECT count(*) FROM control.sessions") == 1
    assert openid.asked.count("/token") == 1


@pytest.mark.parametrize("changes", [{"device_id": new_id("dev")}, {"state": "x" * 43}])
async def test_only_the_device_that_began_finishes_with_its_own_state(
    people: Cases, openid: OpenId, changes: dict[str, str]
) -> None:
    begun = await started(people)
    code = (await asyncio.to_thread(openid.page, begun.authorization_url))["code"]
    with pytest.raises(Refusal, match="challenge_expired"):
        await finished(people, begun, code, **changes)
    assert (await finished(people, begun, code)).new_user, "a stranger's try leaves it as it was"


async def test_a_sign_in_expires_and_is_swept(control_database: Database, oidc: OidcProvider, admin: Any) -> None:
    clock = FakeClock()
    async with cases_on(control_database, clock, providers={"oidc": oidc}) as cases:
        begun = await started(cases)
        await clock.advance(SIGN_IN_TTL.total_seconds())
        with pytest.raises(Refusal, match="challenge_expired"):
            await finished(cases, begun, "any")
        await clock.advance(86_400)
        await started(cases)
        await cases.provider_sign_in.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.provider_sign_ins") == 1


async def test_who_comes_with_the_address_of_an_account_needs_a_linked_domain(
    people: Cases, openid: OpenId, admin: Any
) -> None:
    openid.users["eve"] = {"email": ADA, "email_verified": True}
    await people.signed_in(ADA)
    openid.user = "eve"
    assert await refused(people, openid) == "account_not_admitted"
    assert (await trail(admin))[-1] == ("provider_sign_in.finished", "oidc", "not_linked")
    assert await admin.fetchval("SELECT count(*) FROM control.identities") == 0
    bob = (await people.signed_in("bob@linked.example")).user
    openid.users["bob"] = {"email": "Bob@LINKED.example", "email_verified": True}
    openid.user = "bob"
    linked = await signed_in(people, openid)
    assert (linked.new_user, linked.user) == (False, bob)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({"email": ADA}, "not_verified"),
        ({"email": ADA, "email_verified": False}, "not_verified"),
        ({"email_verified": True}, "no_address"),
        ({"email": "x0:ada@example.org", "email_verified": True}, "no_address"),
    ],
)
async def test_an_address_that_is_none_or_not_verified_makes_no_account(
    people: Cases, openid: OpenId, admin: Any, says: dict[str, Any], reason: str
) -> None:
    openid.users["ada"] = says
    assert await refused(people, openid) == "account_not_admitted"
    assert (await trail(admin))[-1] == ("provider_sign_in.finished", "oidc", reason)
    for table in ("users", "identities", "sessions"):
        assert await admin.fetchval(f"SELECT count(*) FROM control.{table}") == 0, table  # noqa: S608 - constants


@pytest.mark.parametrize("subject", ["\ud800", "é", "a" * 256])
async def test_a_subject_that_cannot_be_kept_makes_no_account(
    people: Cases, openid: OpenId, admin: Any, subject: str
) -> None:
    openid.tamper = lambda token: signed(claims_of(token) | {"sub": subject}, openid.provider.signing_key)
    assert await refused(people, openid) == "account_not_admitted"
    assert (await trail(admin))[-1] == ("provider_sign_in.finished", "oidc", "no_subject")


async def test_whoever_is_blocked_does_not_get_in(people: Cases, openid: OpenId, admin: Any) -> None:
    first = await signed_in(people, openid)
    await admin.execute("UPDATE control.users SET blocked_at = now()")
    assert await refused(people, openid) == "account_not_admitted"
    assert (await trail(admin))[-1] == ("provider_sign_in.finished", "oidc", "blocked")
    await admin.execute("UPDATE control.users SET blocked_at = NULL")
    assert (await signed_in(people, openid)).user == first.user


async def test_sign_up_has_the_same_rule_as_for_codes(
    control_database: Database, oidc: OidcProvider, openid: OpenId, admin: Any
) -> None:
    rule = SignUpRule(SignUp.DOMAINS, frozenset({"corp.example"}))
    async with cases_on(control_database, SystemClock(), providers={"oidc": oidc}, sign_up=rule) as closed:
        assert await refused(closed, openid) == "account_not_admitted"
        assert (await trail(admin))[-1] == ("provider_sign_in.finished", "oidc", "not_welcome")
        boss = await closed.principal("boss@corp.example")
        org_id = (await closed.orgs.create(boss, "team", ORIGIN)).org.org_id
        await closed.invitations.create(boss, org_id, ADA, Role.MEMBER, ORIGIN)
        assert (await signed_in(closed, openid)).new_user


async def test_a_provider_that_fails_leaves_a_row_and_nothing_else(people: Cases, openid: OpenId, admin: Any) -> None:
    begun = await started(people)
    code = (await asyncio.to_thread(openid.page, begun.authorization_url))["code"]
    openid.answers["/token"] = (500, "hunter2")
    with pytest.raises(Refusal, match="provider_unavailable"):
        await finished(people, begun, code)
    openid.answers.clear()
    with pytest.raises(Refusal, match="challenge_expired"):
        await finished(people, begun, code)
    assert [row for row in await trail(admin) if row[2]] == [
        ("provider_sign_in.finished", "oidc", "provider_unavailable"),
        ("provider_sign_in.finished", "oidc", "challenge_expired"),
    ]
    assert await admin.fetchval("SELECT count(*) FROM control.users") == 0
    openid.answers["/.well-known/openid-configuration"] = (500, "")
    people.provider_sign_in._providers["oidc"]._known = None  # type: ignore[attr-defined]
    with pytest.raises(Refusal, match="provider_unavailable"):
        await started(people)
    assert await admin.fetchval("SELECT count(*) FROM control.provider_sign_ins") == 1


async def test_a_network_begins_and_guesses_a_limited_number(people: Cases) -> None:
    burst = LIMITS.per_network.burst
    for _ in range(burst):
        mine = await started(people)
    with pytest.raises(Refusal) as limited:
        await started(people)
    assert limited.value.reason == "rate_limited"
    assert limited.value.retry_after_ms
    for _ in range(LIMITS.guesses_per_network.burst):
        with pytest.raises(Refusal, match="challenge_expired"):
            await finished(people, mine, "x", state="guessed")
    with pytest.raises(Refusal, match="rate_limited"):
        await finished(people, mine, "x", state="guessed")
    with pytest.raises(Refusal, match="provider_refused"):
        await finished(people, mine, "its own comes to the provider")


async def test_the_database_holds_no_secret_of_a_sign_in(people: Cases, openid: OpenId, admin: Any) -> None:
    begun = await started(people)
    wanted = asked(HMAC_KEY.encode(), begun.begun)
    assert wanted.state in begun.authorization_url
    assert wanted.verifier not in begun.authorization_url
    dump = str([tuple(row) for row in await admin.fetch("SELECT * FROM control.provider_sign_ins")])
    assert begun.begun.sign_in_id in dump
    assert not [secret for secret in (wanted.state, wanted.nonce, wanted.verifier) if secret in dump + repr(wanted)]


async def test_a_provider_that_is_not_here_or_a_redirect_that_is_not_ours_is_refused(people: Cases) -> None:
    with pytest.raises(Refusal, match="oidc") as unknown:
        await people.provider_sign_in.start("hunter2", DEVICE, REDIRECT, ORIGIN)
    assert (unknown.value.reason, unknown.value.field) == ("not_found", "provider")
    assert "hunter2" not in unknown.value.message
    with pytest.raises(Refusal) as elsewhere:
        await people.provider_sign_in.start("oidc", DEVICE, "https://evil.example/callback", ORIGIN)
    assert (elsewhere.value.reason, elsewhere.value.field) == ("invalid_value", "redirect_uri")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/callback/",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1/callback",
        "https://127.0.0.1:1/callback",
        "http://localhost:1/callback",
        "http://127.0.0.1:1/callback?x",
        "http://127.0.0.1:1/callback\n",
        "http://127.0.0.1:1@evil.example/callback",
        "https://app.example/signed-in/",
        "https://APP.example/signed-in",
    ],
)
def test_a_redirect_url_is_meant_letter_by_letter(url: str) -> None:
    rule = ProviderRule(redirects=frozenset({"https://app.example/signed-in"}))
    assert not may_redirect(rule, url)
    assert may_redirect(rule, "https://app.example/signed-in")
    assert may_redirect(rule, "http://127.0.0.1:65535/callback")
    assert not may_redirect(ProviderRule(loopback=False), "http://127.0.0.1:1/callback")


def test_the_table_of_identities_that_come_for_the_first_time() -> None:
    rule = ProviderRule(link_domains=frozenset({"ours.example"}))
    flags = itertools.product((False, True), repeat=4)
    for mode, (known, blocked, invited, ours) in itertools.product(SignUp, flags):
        knock = Knock(f"ada@{'ours' if ours else 'else'}.example", known=known, blocked=blocked, invited=invited)
        found = first_refused(SignUpRule(mode, frozenset({"ours.example"})), rule, knock)
        if blocked:
            assert found is Refused.BLOCKED
        elif known:
            assert found is (None if ours else Refused.NOT_LINKED)
        else:
            welcome = mode is SignUp.OPEN or invited or (mode is SignUp.DOMAINS and ours)
            assert found is (None if welcome else Refused.NOT_WELCOME)


@pytest.mark.parametrize("subject", ["", "é", "a\n", "a" * 256])
def test_a_subject_that_is_none_is_not_kept(subject: str) -> None:
    assert not Identity("https://op.example", subject, ADA, email_verified=True).is_storable
    assert Identity("https://op.example", "a" * 255, ADA, email_verified=True).is_storable


async def test_the_providers_account_opens_another_account_after_a_deletion(people: Cases, openid: OpenId) -> None:
    first = await signed_in(people, openid)
    await people.accounts.delete(first.user.user_id, ORIGIN)
    again = await signed_in(people, openid)
    assert (again.new_user, again.user.email) == (True, ADA)
    assert again.user.user_id != first.user.user_id
    assert again.user.org_id != first.user.org_id


async def test_a_sign_in_that_meets_a_deletion_never_opens_the_deleted_account(
    people: Cases, openid: OpenId, admin: Any
) -> None:
    for _ in range(4):
        first = await signed_in(people, openid)
        async with people.transactions.begin() as tx:  # the deletion has locked the account, and goes on in a moment
            await tx.blocks.locked(first.user.user_id)
            meeting = asyncio.create_task(signed_in(people, openid, new_id("dev")))
            await until_lock_waits(admin)
            await tx.accounts.erase(first.user.user_id, SystemClock().now())
        met = await meeting
        assert (met.new_user, met.user.user_id != first.user.user_id) == (True, True)
        await people.accounts.delete(met.user.user_id, ORIGIN)
