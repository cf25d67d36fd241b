"""Sessions, service accounts and sync tokens over the real database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.keys import generate_key
from oa_platform.system.clock import SystemClock
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.app.service_accounts import MAX_SERVICE_ACCOUNTS, Use
from services.control.app.sync_tokens import MAX_OWNERSHIP_QUESTIONS
from services.control.app.tokens import SessionTokens
from services.control.domain.policy import Scoped
from services.control.domain.scopes import SERVICE_ACCOUNT_SCOPES, Scope
from services.control.store.service_accounts import LISTED_LIMIT as ACCOUNTS_LISTED
from services.control.store.sessions import LISTED_LIMIT as SESSIONS_LISTED
from services.control.store.store import SWEEP_BATCH
from services.control.tests.cases import ORIGIN, Cases, Letters, cases_on
from services.control.tests.harness import new_id


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
            *(replica.account.refresh(token, device, ORIGIN) for _ in range(10) for replica in (one, other))
        )
    assert len(set(answers)) == 1, "the same tokens, byte for byte"
    assert answers[0].refresh_token != token
    assert await admin.fetchval("SELECT counter FROM control.sessions") == 1
    refreshed = "SELECT count(*) FROM control.audit_events WHERE action = 'session.refreshed'"
    assert await admin.fetchval(refreshed) == 1


async def test_a_stolen_refresh_token_ends_the_session_for_thief_and_owner(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    device, stolen = signed_in.session.device_id, signed_in.tokens.refresh_token
    owned = await cases.account.refresh(stolen, device, ORIGIN)
    await cases.admitted(owned.access_token)
    for token in (stolen, owned.refresh_token, stolen):
        with pytest.raises(Refusal, match="token_replay"):
            await cases.account.refresh(token, device, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(owned.access_token)
    trail = await admin.fetch("SELECT action, reason FROM control.audit_events ORDER BY audit_id DESC LIMIT 2")
    assert [tuple(row) for row in trail] == [("session.revoked", "token_replay"), ("session.refreshed", "")]


async def test_an_answer_that_was_lost_is_given_again_days_later(cases: Cases, clock: FakeClock) -> None:
    signed_in = await cases.signed_in()
    device, token = signed_in.session.device_id, signed_in.tokens.refresh_token
    await cases.admitted(signed_in.tokens.access_token)
    lost = await cases.account.refresh(token, device, ORIGIN)
    await clock.advance(31)
    assert await cases.account.refresh(token, device, ORIGIN) == lost
    await clock.advance(7 * 86_400)
    late = await cases.account.refresh(token, device, ORIGIN)
    assert late.refresh_token == lost.refresh_token
    await cases.admitted(late.access_token)
    with pytest.raises(Refusal, match="token_replay"):
        await cases.account.refresh(token, device, ORIGIN)


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
        tokens = await one.account.refresh(token, device, ORIGIN)
        calls: list[Awaitable[Any]] = [
            replica.account.refresh(token, device, ORIGIN) for _ in range(10) for replica in (one, other)
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
    tokens = await cases.account.refresh(signed_in.tokens.refresh_token, signed_in.session.device_id, ORIGIN)
    assert (await cases.admitted(tokens.access_token)).session_id == signed_in.session.session_id


async def test_sessions_are_listed_and_ended_one_by_one(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in()
    await clock.advance(1)
    second = await cases.signed_in()
    caller = await cases.admitted(second.tokens.access_token)
    assert [found.session_id for found in await cases.account.sessions(caller)] == [
        second.session.session_id,
        first.session.session_id,
    ]
    for _ in range(2):
        await cases.account.revoke_session(caller, first.session.session_id, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(first.tokens.access_token)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.account.refresh(first.tokens.refresh_token, first.session.device_id, ORIGIN)
    await clock.advance(31 * 86_400)
    assert [found.session_id for found in await cases.account.sessions(caller)] == [second.session.session_id]


async def test_nobody_ends_somebody_elses_session(cases: Cases) -> None:
    victim = await cases.signed_in("victim@example.org")
    caller = await cases.principal()
    with pytest.raises(Refusal, match="not_found"):
        await cases.account.revoke_session(caller, victim.session.session_id, ORIGIN)
    assert (await cases.admitted(victim.tokens.access_token)).subject == victim.user.user_id


async def test_a_sign_in_on_the_same_device_replaces_the_session(cases: Cases) -> None:
    device = new_id("dev")
    first = await cases.signed_in(device_id=device)
    await cases.signed_in(device_id=device)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(first.tokens.access_token)


async def test_who_is_no_member_any_more_may_nothing_from_that_moment(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    header = f"Bearer {signed_in.tokens.access_token}"
    assert await cases.gate.admit(header, Scoped(Scope.RUNS_READ), "m", ORIGIN)
    await admin.execute("UPDATE control.memberships SET role = 'viewer'")
    assert await cases.gate.admit(header, Scoped(Scope.RUNS_READ), "m", ORIGIN)
    with pytest.raises(Refusal, match="org_scope_denied"):
        await cases.gate.admit(header, Scoped(Scope.RUNS_WRITE), "m", ORIGIN)
    await admin.execute("DELETE FROM control.memberships")
    with pytest.raises(Refusal, match="org_scope_denied"):
        await cases.gate.admit(header, Scoped(Scope.RUNS_READ), "m", ORIGIN)
    denied = await admin.fetch("SELECT reason, target FROM control.audit_events WHERE action = 'call.denied'")
    assert [tuple(row) for row in denied] == [("org_scope_denied", "m")] * 2


async def test_a_key_gives_tokens_until_it_is_revoked(cases: Cases) -> None:
    person = await cases.principal()
    account, key = await cases.accounts.create(person, "script", ORIGIN)
    edge = await cases.accounts.exchange(key, Use.EDGE, ORIGIN)
    script = await cases.admitted(edge.token)
    assert (script.subject, script.org_id) == (account.service_account_id, person.org_id)
    assert script.effective_scopes == SERVICE_ACCOUNT_SCOPES
    for _ in range(2):
        await cases.accounts.revoke(person, account.service_account_id, ORIGIN)
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.accounts.exchange(key, Use.WORKER, ORIGIN)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(edge.token)


@pytest.mark.parametrize("key", ["", "oak_", "oak_" + "A" * 43, "nothing of ours", "oak_" + "é" * 43])
async def test_an_unknown_key_is_refused_alike(cases: Cases, key: str) -> None:
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.accounts.exchange(key, Use.WORKER, ORIGIN)


async def test_a_worker_token_is_not_taken_at_the_edge(cases: Cases) -> None:
    person = await cases.principal()
    _, key = await cases.accounts.create(person, "worker", ORIGIN)
    worker = await cases.accounts.exchange(key, Use.WORKER, ORIGIN)
    with pytest.raises(Refusal, match="invalid_token"):
        await cases.admitted(worker.token)


async def test_another_orgs_account_is_not_found(cases: Cases) -> None:
    theirs, _ = await cases.accounts.create(await cases.principal("victim@example.org"), "theirs", ORIGIN)
    caller = await cases.principal()
    with pytest.raises(Refusal, match="not_found"):
        await cases.accounts.revoke(caller, theirs.service_account_id, ORIGIN)
    assert await cases.accounts.list(caller) == []


async def test_topics_are_granted_or_refused_by_name(cases: Cases) -> None:
    me = await cases.principal()
    mine, theirs, unknown = new_id("run"), new_id("run"), new_id("run")
    cases.runs.orgs = {mine: me.org_id, theirs: new_id("org")}
    topics = [
        f"run:{mine}:events",
        f"run:{theirs}:events",
        f"run:{unknown}:events",
        f"user:{me.subject}:runs",
        f"user:{new_id('usr')}:runs",
        f"org:{me.org_id}:runs",
        f"org:{new_id('org')}:runs",
        f"worker:{new_id('wrk')}:lifecycle",
        "run:nonsense:events",
    ]
    minted = await cases.sync.mint(me, topics, 0, "cli", ORIGIN)
    assert {grant.topic: grant.reason for grant in minted.grants} == dict(
        zip(
            topics,
            [
                None,
                "owner_mismatch",
                "forbidden_topic",
                None,
                "owner_mismatch",
                None,
                "owner_mismatch",
                "forbidden_topic",
                "invalid_topic",
            ],
            strict=True,
        )
    )
    assert cases.runs.asked == 3


async def test_a_topic_asked_for_twice_is_answered_twice_and_decided_once(cases: Cases) -> None:
    me = await cases.principal()
    run_id = new_id("run")
    cases.runs.orgs = {run_id: me.org_id}
    minted = await cases.sync.mint(me, [f"run:{run_id}:events"] * 2, 0, "", ORIGIN)
    assert len(minted.grants) == 2
    assert cases.runs.asked == 1


async def test_not_knowing_whose_a_run_is_mints_nothing(cases: Cases) -> None:
    me = await cases.principal()
    cases.runs.orgs = None
    with pytest.raises(Refusal, match="unavailable"):
        await cases.sync.mint(me, [f"user:{me.subject}:runs", f"run:{new_id('run')}:events"], 0, "", ORIGIN)
    minted = await cases.sync.mint(me, [f"user:{me.subject}:runs"], 0, "", ORIGIN)
    assert minted.grants[0].reason is None


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
                account, key = await cases.accounts.create(me, "a", ORIGIN)
                accounts[account.service_account_id] = (account.org_id, key)
            case 1 if accounts:
                target = chance.choice(list(accounts))
                if accounts[target][0] == me.org_id:
                    await cases.accounts.revoke(me, target, ORIGIN)
                    del accounts[target]
                else:
                    with pytest.raises(Refusal, match="not_found"):
                        await cases.accounts.revoke(me, target, ORIGIN)
            case 2:
                found = {account.org_id for account in await cases.accounts.list(me)}
                assert found <= {me.org_id}
            case 3:
                run_id, owner = chance.choice(list(cases.runs.orgs.items()))
                topics = [f"run:{run_id}:events", f"user:{other.subject}:runs", f"org:{other.org_id}:runs"]
                try:
                    minted = await cases.sync.mint(me, topics, 0, "", ORIGIN)
                    granted = [grant.reason is None for grant in minted.grants]
                except Refusal:
                    granted = [False] * 3
                assert granted == [owner == me.org_id, other is me, other is me]
            case _ if accounts:
                target = chance.choice(list(accounts))
                org_id, key = accounts[target]
                script = await cases.admitted((await cases.accounts.exchange(key, Use.EDGE, ORIGIN)).token)
                assert script.org_id == org_id
                with pytest.raises(Refusal, match="missing_scope"):
                    await cases.accounts.create(script, "from a key", ORIGIN)
            case _:
                await clock.advance(1)


async def test_an_org_has_a_limited_number_of_accounts(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    await admin.execute(
        """INSERT INTO control.service_accounts
        SELECT 'sva_' || n, $1, 'n', decode(md5(n::text), 'hex'), 'test', now() FROM generate_series(1, $2) n""",
        person.org_id,
        MAX_SERVICE_ACCOUNTS - 3,
    )
    calls = [cases.accounts.create(person, "a", ORIGIN) for _ in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert [refusal.reason for refusal in refused] == ["limit_reached"] * 5
    assert len(results) - len(refused) == 3
    await cases.accounts.revoke(person, "sva_1", ORIGIN)
    await cases.accounts.create(person, "a", ORIGIN)


async def test_a_mint_asks_runtime_a_limited_number_of_questions_at_a_time(cases: Cases) -> None:
    me = await cases.principal()
    topics = [f"run:{new_id('run')}:events" for _ in range(128)]
    cases.runs.orgs = {topic.split(":")[1]: me.org_id for topic in topics}
    cases.runs.takes_s = 0.005
    minted = await cases.sync.mint(me, topics, 0, "", ORIGIN)
    assert all(grant.reason is None for grant in minted.grants)
    assert cases.runs.most_at_a_time == MAX_OWNERSHIP_QUESTIONS


async def test_the_use_of_a_revoked_key_is_on_record(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    account, key = await cases.accounts.create(person, "script", ORIGIN)
    await cases.accounts.revoke(person, account.service_account_id, ORIGIN)
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.accounts.exchange(key, Use.WORKER, ORIGIN)
    row = await admin.fetchrow("SELECT action, reason, actor FROM control.audit_events ORDER BY audit_id DESC LIMIT 1")
    assert tuple(row) == ("service_account.key_exchanged", "invalid_api_key", account.service_account_id)


async def test_lists_have_an_end(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    person = await cases.admitted(signed_in.tokens.access_token)
    await admin.execute(
        """INSERT INTO control.sessions (session_id, user_id, org_id, device_id, counter, created_at, refreshed_at)
        SELECT 'ses_' || n, $1, $2, 'dev_' || n, 0, now(), now() FROM generate_series(1, $3) n""",
        person.subject,
        person.org_id,
        SESSIONS_LISTED,
    )
    await admin.execute(
        """INSERT INTO control.service_accounts
        SELECT 'sva_' || n, $1, 'n', decode(md5(n::text), 'hex'), 'test', now(), now() FROM generate_series(1, $2) n""",
        person.org_id,
        ACCOUNTS_LISTED + 1,
    )
    assert len(await cases.account.sessions(person)) == SESSIONS_LISTED
    assert len(await cases.accounts.list(person)) == ACCOUNTS_LISTED


async def test_a_sweep_takes_a_limited_number_at_a_time(cases: Cases, admin: Any, clock: FakeClock) -> None:
    await admin.execute(
        "INSERT INTO control.rate_limits SELECT n::text, 'epoch' FROM generate_series(1, $1) n", SWEEP_BATCH + 5
    )
    for left in (5, 0):
        await cases.store.sweep(clock.now())
        assert await admin.fetchval("SELECT count(*) FROM control.rate_limits") == left
