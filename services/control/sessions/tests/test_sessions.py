"""Sessions over the real database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.keys import generate_key
from oa_platform.system.clock import SystemClock
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.api_keys.domain import Use
from services.control.policy.domain import Scope, Scoped
from services.control.sessions.app import SessionTokens
from services.control.sessions.domain import SESSION_MAX_TTL
from services.control.sessions.limits import MAX_LISTED
from services.control.tests.cases import ORIGIN, Cases, Letters, cases_on
from services.control.tests.harness import Control, new_id, reason_of


async def test_twenty_refreshes_at_once_on_two_replicas_get_one_answer(control_database: Database, admin: Any) -> None:
    # By a real clock: with one that stands still, two rotations would look like one.
    key, letters, clock = generate_key(), Letters(), SystemClock()
    async with (
        cases_on(control_database, clock, key, letters) as one,
        cases_on(control_database, clock, key, letters) as other,
    ):
        signed_in = await one.signed_in()
        device, token = signed_in.session.device_id, signed_in.tokens.refresh_token
        answers = await asyncio.gather(
            *(replica.sessions.refresh(token, device, ORIGIN) for _ in range(10) for replica in (one, other))
        )
    assert len(set(answers)) == 1, "the same tokens, byte for byte"
    assert answers[0].refresh_token != token
    assert await admin.fetchval("SELECT counter FROM control.sessions") == 1
    refreshed = "SELECT count(*) FROM control.audit_events WHERE action = 'session.refreshed'"
    assert await admin.fetchval(refreshed) == 1


async def test_a_stolen_refresh_token_ends_the_session_for_thief_and_owner(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    device, stolen = signed_in.session.device_id, signed_in.tokens.refresh_token
    owned = await cases.sessions.refresh(stolen, device, ORIGIN)
    await cases.admitted(owned.access_token)
    for token in (stolen, owned.refresh_token, stolen):
        with pytest.raises(Refusal, match="token_replay"):
            await cases.sessions.refresh(token, device, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(owned.access_token)
    trail = await admin.fetch("SELECT action, reason FROM control.audit_events ORDER BY audit_id DESC LIMIT 2")
    assert [tuple(row) for row in trail] == [("session.revoked", "token_replay"), ("session.refreshed", "")]


async def test_an_answer_that_was_lost_is_given_again_days_later(cases: Cases, clock: FakeClock) -> None:
    signed_in = await cases.signed_in()
    device, token = signed_in.session.device_id, signed_in.tokens.refresh_token
    await cases.admitted(signed_in.tokens.access_token)
    lost = await cases.sessions.refresh(token, device, ORIGIN)
    await clock.advance(31)
    assert await cases.sessions.refresh(token, device, ORIGIN) == lost
    await clock.advance(7 * 86_400)
    late = await cases.sessions.refresh(token, device, ORIGIN)
    assert late.refresh_token == lost.refresh_token
    await cases.admitted(late.access_token)
    with pytest.raises(Refusal, match="token_replay"):
        await cases.sessions.refresh(token, device, ORIGIN)


async def test_a_use_is_recorded_before_the_caller_is_let_in_or_nobody_is(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    await admin.execute("REVOKE UPDATE ON control.sessions FROM control_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await cases.admitted(signed_in.tokens.access_token)
    await admin.execute("GRANT UPDATE ON control.sessions TO control_app")
    await cases.admitted(signed_in.tokens.access_token)
    assert await admin.fetchval("SELECT used_counter FROM control.sessions") == 0
    await admin.execute("REVOKE UPDATE ON control.sessions FROM control_app")
    await cases.admitted(signed_in.tokens.access_token)  # once is enough: nothing is written again


@pytest.mark.parametrize("seed", range(4))
async def test_retries_that_race_the_first_use_on_two_replicas_end_the_session_only_after_it(
    control_database: Database, admin: Any, seed: int
) -> None:
    # Whoever is answered got the one successor; whoever is refused came after its first use, which is then on record.
    key, letters, clock = generate_key(), Letters(), SystemClock()
    async with (
        cases_on(control_database, clock, key, letters) as one,
        cases_on(control_database, clock, key, letters) as other,
    ):
        signed_in = await one.signed_in()
        device, token = signed_in.session.device_id, signed_in.tokens.refresh_token
        tokens = await one.sessions.refresh(token, device, ORIGIN)
        calls: list[Awaitable[Any]] = [
            replica.sessions.refresh(token, device, ORIGIN) for _ in range(10) for replica in (one, other)
        ]
        calls += [other.admitted(tokens.access_token)]
        random.Random(seed).shuffle(calls)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = {outcome.reason for outcome in outcomes if isinstance(outcome, Refusal)}
    given = {outcome.refresh_token for outcome in outcomes if isinstance(outcome, SessionTokens)}
    assert refused <= {"token_replay", "token_revoked"}
    assert given <= {tokens.refresh_token}
    row = await admin.fetchrow("SELECT counter, used_counter, revoke_reason FROM control.sessions")
    assert tuple(row) == (1, 1, "token_replay" if refused else None)


async def test_an_expired_access_token_does_not_end_the_session(cases: Cases, clock: FakeClock) -> None:
    signed_in = await cases.signed_in()
    await clock.advance(3606)
    with pytest.raises(Refusal, match="token_expired"):
        await cases.admitted(signed_in.tokens.access_token)
    tokens = await cases.sessions.refresh(signed_in.tokens.refresh_token, signed_in.session.device_id, ORIGIN)
    assert (await cases.admitted(tokens.access_token)).session_id == signed_in.session.session_id


async def test_sessions_are_listed_and_ended_one_by_one(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in()
    await clock.advance(1)
    second = await cases.signed_in()
    caller = await cases.admitted(second.tokens.access_token)
    assert [found.session_id for found in await cases.sessions.list(caller)] == [
        second.session.session_id,
        first.session.session_id,
    ]
    for _ in range(2):
        await cases.sessions.revoke(caller, first.session.session_id, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(first.tokens.access_token)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.sessions.refresh(first.tokens.refresh_token, first.session.device_id, ORIGIN)
    await clock.advance(29 * 86_400)
    await cases.sessions.refresh(second.tokens.refresh_token, second.session.device_id, ORIGIN)
    await clock.advance(2 * 86_400)
    assert [found.session_id for found in await cases.sessions.list(caller)] == [second.session.session_id]


async def test_sessions_that_have_ended_by_age_are_not_listed(cases: Cases, clock: FakeClock) -> None:
    idle, used = await cases.signed_in(), await cases.signed_in()
    caller, tokens = await cases.admitted(used.tokens.access_token), used.tokens
    for days in range(0, 180, 29):
        expected = {used.session.session_id, idle.session.session_id} if days < 30 else {used.session.session_id}
        assert {found.session_id for found in await cases.sessions.list(caller)} == expected, f"after {days} days"
        tokens = await cases.sessions.refresh(tokens.refresh_token, used.session.device_id, ORIGIN)
        await clock.advance(29 * 86_400)
    assert await cases.sessions.list(caller) == [], "a session has a maximum lifetime, however often it is refreshed"


async def test_sessions_that_have_ended_by_age_are_not_ended_again(cases: Cases, clock: FakeClock, admin: Any) -> None:
    """Years of sign-ins leave thousands of them: to end each would take longer than a call may."""
    idle, used = await cases.signed_in(), await cases.signed_in()
    await clock.advance(29 * 86_400)
    await cases.sessions.refresh(used.tokens.refresh_token, used.session.device_id, ORIGIN)
    await clock.advance(2 * 86_400)
    async with cases.transactions.begin() as tx:
        ended = await cases.sessions.end_for_operator(tx, used.session.user_id, "", ORIGIN)
    assert list(ended) == [used.session.session_id]
    assert await admin.fetchval("SELECT position FROM control.revocation_head") == 1
    with pytest.raises(Refusal, match="reauth_required"):
        await cases.sessions.refresh(idle.tokens.refresh_token, idle.session.device_id, ORIGIN)


async def test_nobody_ends_somebody_elses_session(cases: Cases) -> None:
    victim = await cases.signed_in("victim@example.org")
    caller = await cases.principal()
    with pytest.raises(Refusal, match="not_found"):
        await cases.sessions.revoke(caller, victim.session.session_id, ORIGIN)
    assert (await cases.admitted(victim.tokens.access_token)).subject == victim.user.user_id


async def test_a_token_that_comes_from_another_device_ends_the_session_and_that_is_what_is_said(cases: Cases) -> None:
    signed_in = await cases.signed_in()
    with pytest.raises(Refusal, match="another device") as refused:
        await cases.sessions.refresh(signed_in.tokens.refresh_token, new_id("dev"), ORIGIN)
    assert refused.value.reason == "token_replay"
    with pytest.raises(Refusal, match="token_replay"):
        await cases.sessions.refresh(signed_in.tokens.refresh_token, signed_in.session.device_id, ORIGIN)


async def test_a_sign_in_on_the_same_device_replaces_the_session(cases: Cases) -> None:
    device = new_id("dev")
    first = await cases.signed_in(device_id=device)
    await cases.signed_in(device_id=device)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(first.tokens.access_token)


async def test_who_is_no_member_any_more_may_nothing_from_that_moment(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    header = f"Bearer {signed_in.tokens.access_token}"
    await cases.let_in(header, Scoped(Scope.RUNS_READ))
    await admin.execute("UPDATE control.memberships SET role = 'viewer'")
    await cases.let_in(header, Scoped(Scope.RUNS_READ))
    with pytest.raises(Refusal, match="org_scope_denied"):
        await cases.let_in(header, Scoped(Scope.RUNS_WRITE))
    await admin.execute("DELETE FROM control.memberships")
    with pytest.raises(Refusal, match="org_scope_denied"):
        await cases.let_in(header, Scoped(Scope.RUNS_READ))
    denied = await admin.fetch("SELECT reason, target FROM control.audit_events WHERE action = 'call.denied'")
    assert [tuple(row) for row in denied] == [("org_scope_denied", "m")] * 2


async def test_the_list_has_an_end(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    await admin.execute(
        """INSERT INTO control.sessions (session_id, user_id, org_id, device_id, counter, created_at, refreshed_at)
        SELECT 'ses_' || n, $1, $2, 'dev_' || n, 0, now(), now() FROM generate_series(1, $3) n""",
        person.subject,
        person.org_id,
        MAX_LISTED,
    )
    assert len(await cases.sessions.list(person)) == MAX_LISTED


async def test_no_ended_session_keeps_one_that_goes_on_from_the_list(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.control.sessions.store.MAX_LISTED", 2)
    person = await cases.principal()
    for _ in range(2):
        await cases.sessions.revoke(await cases.principal(), "", ORIGIN)
    listed = [one.session_id for one in await cases.sessions.list(person)]
    assert person.session_id in listed
    assert len(listed) == 2


@pytest.mark.parametrize(
    ("on_phone", "keep_current", "expected"),
    [
        (False, False, {"laptop", "phone", "tablet"}),
        (False, True, {"phone", "tablet"}),
        (True, False, {"phone"}),
        (True, True, {"phone"}),
    ],
)
async def test_many_sessions_end_at_once_and_each_is_told_and_audited(
    cases: Cases, admin: Any, on_phone: bool, keep_current: bool, expected: set[str]
) -> None:
    signed_in = {name: await cases.signed_in() for name in ("laptop", "phone", "tablet")}
    ended_before = await cases.signed_in()
    strangers = await cases.signed_in("grace@example.org")
    caller = await cases.admitted(signed_in["laptop"].tokens.access_token)
    await cases.sessions.revoke(caller, ended_before.session.session_id, ORIGIN)

    device = signed_in["phone"].session.device_id if on_phone else ""
    ended = await cases.sessions.revoke_many(caller, device, ORIGIN, keep_current=keep_current)
    assert set(ended) == {signed_in[name].session.session_id for name in expected}
    for name, one in signed_in.items():
        if name in expected:
            with pytest.raises(Refusal, match="token_revoked"):
                await cases.admitted(one.tokens.access_token)
        else:
            await cases.admitted(one.tokens.access_token)
    await cases.admitted(strangers.tokens.access_token)
    told = await admin.fetch("SELECT session_id, reason FROM control.revocations WHERE position > 1 ORDER BY position")
    assert [tuple(row) for row in told] == [(one, "user_requested") for one in ended]
    audited = "SELECT target, reason, actor FROM control.audit_events WHERE action = 'session.revoked'"
    rows = [tuple(row) for row in await admin.fetch(f"{audited} ORDER BY audit_id OFFSET 1")]
    assert rows == [(one, "user_requested", caller.subject) for one in ended]
    assert await cases.sessions.revoke_many(caller, device, ORIGIN, keep_current=keep_current) == []


async def test_many_sessions_end_all_or_none(cases: Cases, admin: Any) -> None:
    first, second = await cases.signed_in(), await cases.signed_in()
    caller = await cases.admitted(first.tokens.access_token)
    await admin.execute("ALTER TABLE control.revocations ADD CHECK (position < 2)")
    with pytest.raises(asyncpg.CheckViolationError):
        await cases.sessions.revoke_many(caller, "", ORIGIN, keep_current=False)
    for one in (first, second):
        await cases.admitted(one.tokens.access_token)
    assert await admin.fetchval("SELECT position FROM control.revocation_head") == 0


async def test_a_service_account_has_no_sessions_to_end(cases: Cases) -> None:
    owner = await cases.principal()
    _, key = await cases.account(owner, "ci")
    token = await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)
    script = await cases.admitted(token.token)
    assert await cases.sessions.revoke_many(script, "", ORIGIN, keep_current=False) == ()


async def test_sessions_that_end_each_other_at_once_all_end_once(
    control_database: Database, clock: FakeClock, admin: Any
) -> None:
    key, letters = generate_key(), Letters()
    async with (
        cases_on(control_database, clock, key, letters) as one,
        cases_on(control_database, clock, key, letters) as other,
    ):
        callers = [await one.principal() for _ in range(6)]
        ended = await asyncio.gather(
            *(
                (one, other)[at % 2].sessions.revoke_many(caller, "", ORIGIN, keep_current=False)
                for at, caller in enumerate(callers)
            )
        )
    assert sorted(one for ids in ended for one in ids) == sorted(caller.session_id for caller in callers)
    assert await admin.fetchval("SELECT count(*) FROM control.revocations") == len(callers)


async def test_a_session_ends_at_its_greatest_age_however_often_it_is_used(cases: Cases, clock: FakeClock) -> None:
    signed_in = await cases.signed_in()
    device, tokens = signed_in.session.device_id, signed_in.tokens
    end = signed_in.session.created_at + SESSION_MAX_TTL
    while clock.now() + timedelta(days=20) < end:
        await clock.advance(timedelta(days=20).total_seconds())
        tokens = await cases.sessions.refresh(tokens.refresh_token, device, ORIGIN)
        await cases.admitted(tokens.access_token)
    await clock.advance((end - clock.now() - timedelta(minutes=10)).total_seconds())
    tokens = await cases.sessions.refresh(tokens.refresh_token, device, ORIGIN)
    assert tokens.access_expires_at == end.replace(microsecond=0), "no token outlives it"
    await clock.advance(timedelta(minutes=10).total_seconds())
    with pytest.raises(Refusal, match="reauth_required"):
        await cases.sessions.refresh(tokens.refresh_token, device, ORIGIN)


async def test_no_api_key_learns_the_devices_of_a_person(control: Control) -> None:
    token = await control.access_token()
    asked = {"name": "laptop", "scopes": ["runs.read"], "ttlSeconds": 3600}
    personal = await control.ok("control.ApiKeyService/CreateApiKey", asked, token)
    account = await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "ci"}, token)
    for made in (personal, account):
        exchange = {"apiKey": made["apiKey"], "use": "TOKEN_USE_EDGE"}
        program = (await control.ok("control.ServiceAccountService/ExchangeKey", exchange))["token"]
        assert not (await control.ok("control.SessionService/GetCaller", {}, program))["principal"].get("deviceId")
        listing = await control.call("control.SessionService/ListSessions", {}, program)
        assert (listing.status_code, reason_of(listing)) == (403, "missing_scope")
    (shown,) = (await control.ok("control.SessionService/ListSessions", {}, token))["sessions"]
    assert shown["deviceId"]
