"""Keys of service accounts and of people over the real database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from oa_testing.locks import until_lock_waits
from services.control.api_keys.app.keys import NewKey, Wanted
from services.control.api_keys.domain import PERSON_KEY_SCOPES, EndReason, Use
from services.control.api_keys.limits import MAX_NOTED_KEYS
from services.control.policy.domain import Role, Scope, Scoped, SessionOnly, StandingPrincipal, role_scopes
from services.control.sync_tokens.domain import Surface
from services.control.tests.cases import ORIGIN, Cases, reason_of
from services.control.tests.harness import new_id

DAY_S = 86_400
SEEN = "SELECT count(*) FROM control.audit_events WHERE action = $1 AND reason = $2"


async def personal(cases: Cases, person: StandingPrincipal, ttl_s: int = DAY_S, *scopes: str) -> NewKey:
    return await cases.api_keys.create(person, "", Wanted("laptop", scopes, ttl_s), ORIGIN)


async def edge_token(cases: Cases, key: str) -> str:
    return (await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token


async def test_a_key_with_one_scope_does_that_and_nothing_else(cases: Cases) -> None:
    _, key = await cases.account(await cases.principal(), "ci", ["runs.write"])
    token = f"Bearer {await edge_token(cases, key)}"
    await cases.let_in(token, Scoped(Scope.RUNS_WRITE))
    assert await reason_of(cases.let_in(token, Scoped(Scope.RUNS_READ))) == "missing_scope"
    assert await reason_of(cases.api_keys.exchange(key, Use.WORKER, ORIGIN)) == "missing_scope"


async def test_a_token_of_a_key_ends_with_the_key(cases: Cases, clock: FakeClock, admin: Any) -> None:
    _, key = await cases.account(await cases.principal(), "ci", ttl_s=600)
    issued = await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    assert issued.expires_at <= clock.now() + timedelta(seconds=600)
    edge = await edge_token(cases, key)
    await clock.advance(601)
    assert await reason_of(cases.api_keys.exchange(key, Use.EDGE, ORIGIN)) == "invalid_api_key"
    assert await reason_of(cases.admitted(edge)) == "token_revoked"
    for _ in range(2):
        await cases.api_keys.sweep()
    rows = await admin.fetch("SELECT session_id, reason FROM control.revocations")
    ended = await admin.fetchval("SELECT api_key_id FROM control.api_keys")
    assert [tuple(row) for row in rows] == [(ended, "expired")], "what its tokens hold open is told, once"


async def test_two_keys_of_an_account_live_apart(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    account, first = await cases.account(person)
    second = await cases.api_keys.create(person, account.service_account_id, Wanted("second"), ORIGIN)
    tokens = [await edge_token(cases, key) for key in (first, second.text)]
    for _ in range(2):
        await cases.api_keys.revoke(person, second.key.api_key_id, ORIGIN)
    await cases.admitted(tokens[0])
    await edge_token(cases, first)
    assert await reason_of(cases.admitted(tokens[1])) == "token_revoked"
    assert await reason_of(cases.api_keys.exchange(second.text, Use.EDGE, ORIGIN)) == "invalid_api_key"
    rows = await admin.fetch("SELECT session_id FROM control.revocations")
    assert [row["session_id"] for row in rows] == [second.key.api_key_id]
    assert await admin.fetchval(SEEN, "api_key.revoked", "") == 1


async def test_rotation_leaves_the_old_key_its_time(cases: Cases, clock: FakeClock) -> None:
    person = await cases.principal()
    account, old = await cases.account(person, "ci", ["runs.read"], 10 * DAY_S)
    [known] = await cases.api_keys.list(person, account.service_account_id)
    new, old_ends = await cases.api_keys.rotate(person, known.api_key_id, 3600, ORIGIN)
    assert old_ends == clock.now() + timedelta(hours=1)
    assert (new.key.name, new.key.scopes, new.key.owner) == (known.name, known.scopes, known.owner)
    assert new.key.expires_at == clock.now() + timedelta(days=10)
    token = await edge_token(cases, old)
    await edge_token(cases, new.text)
    await clock.advance(3601)
    await edge_token(cases, new.text)
    assert await reason_of(cases.api_keys.exchange(old, Use.EDGE, ORIGIN)) == "invalid_api_key"
    assert await reason_of(cases.admitted(token)) in ("token_revoked", "token_expired")
    await cases.api_keys.sweep()
    [newest, before] = await cases.api_keys.list(person, account.service_account_id)
    assert (before.replaced_by, before.revoke_reason) == (newest.api_key_id, EndReason.ROTATED)


async def test_rotation_without_overlap_ends_the_old_key_at_once(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    new = await personal(cases, person)
    token = await edge_token(cases, new.text)
    await cases.api_keys.rotate(person, new.key.api_key_id, 0, ORIGIN)
    assert await reason_of(cases.admitted(token)) == "token_revoked"
    assert await admin.fetchval("SELECT reason FROM control.revocations") == "rotated"


async def test_of_many_rotations_at_once_one_makes_a_key(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    new = await personal(cases, person)
    calls = [cases.api_keys.rotate(person, new.key.api_key_id, 60, ORIGIN) for _ in range(6)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result.reason for result in results if isinstance(result, Refusal)]
    assert refused == ["already_exists"] * 5
    assert await admin.fetchval("SELECT count(*) FROM control.api_keys") == 2


ANSWERED_AGAIN = "answered_again"


async def test_a_rotation_whose_answer_was_lost_is_answered_again_and_makes_no_second_key(
    cases: Cases, admin: Any
) -> None:
    person = await cases.principal()
    _, text = await cases.account(person, ttl_s=10 * DAY_S)
    old = await admin.fetchval("SELECT api_key_id FROM control.api_keys")
    calls = [cases.api_keys.rotate(person, old, 0, ORIGIN, "lost-1") for _ in range(4)]
    answers = await asyncio.gather(*calls)
    assert len({(new.text, new.key.api_key_id, ends) for new, ends in answers}) == 1
    assert await admin.fetchval("SELECT count(*) FROM control.api_keys") == 2
    assert await admin.fetchval(SEEN, "api_key.rotated", "") == 1
    assert await admin.fetchval(SEEN, "api_key.rotated", ANSWERED_AGAIN) == 3
    await edge_token(cases, answers[0][0].text)
    assert await reason_of(cases.api_keys.exchange(text, Use.EDGE, ORIGIN)) == "invalid_api_key"


async def test_a_rotation_is_answered_again_to_whoever_asked_and_for_what_was_asked(cases: Cases, admin: Any) -> None:
    admin_of_org = await cases.principal()
    account, _ = await cases.account(admin_of_org, ttl_s=10 * DAY_S)
    [old] = await cases.api_keys.list(admin_of_org, account.service_account_id)
    bob = await cases.principal("bob@example.org")
    add = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, 'admin', now())"
    await admin.execute(add, admin_of_org.org_id, bob.subject)
    other_admin = replace(admin_of_org, subject=bob.subject)

    async def again(who: StandingPrincipal, overlap_s: int, key: str) -> str:
        return await reason_of(cases.api_keys.rotate(who, old.api_key_id, overlap_s, ORIGIN, key))

    first = await cases.api_keys.rotate(admin_of_org, old.api_key_id, 3600, ORIGIN, "lost-1")
    assert await again(admin_of_org, 3601, "lost-1") == "idempotency_conflict"
    assert await again(admin_of_org, 3600, "lost-2") == "already_exists"
    assert await again(admin_of_org, 3600, "") == "already_exists"
    assert await again(other_admin, 3600, "lost-1") == "already_exists"
    assert await cases.api_keys.rotate(admin_of_org, old.api_key_id, 3600, ORIGIN, "lost-1") == first
    await cases.api_keys.revoke(admin_of_org, first[0].key.api_key_id, ORIGIN)
    assert await again(admin_of_org, 3600, "lost-1") == "not_found"


async def test_a_new_key_that_was_used_is_not_shown_again(cases: Cases) -> None:
    person = await cases.principal()
    old = (await personal(cases, person)).key.api_key_id
    new, _ = await cases.api_keys.rotate(person, old, 2 * DAY_S, ORIGIN, "lost-1")
    assert (await cases.api_keys.rotate(person, old, 2 * DAY_S, ORIGIN, "lost-1"))[0] == new, "cut to its own end"
    await edge_token(cases, new.text)
    await cases.api_keys.uses.write_down()
    with pytest.raises(Refusal) as refused:
        await cases.api_keys.rotate(person, old, 2 * DAY_S, ORIGIN, "lost-1")
    assert refused.value.reason == "already_exists"
    assert refused.value.metadata == {"replaced_by": new.key.api_key_id}


async def test_an_owner_has_a_limited_number_of_keys_however_many_are_asked_for_at_once(
    cases: Cases, admin: Any
) -> None:
    person = await cases.principal()
    limit = 20
    for _ in range(limit - 2):
        await personal(cases, person)
    async with admin.transaction():
        await admin.execute("LOCK TABLE control.api_keys IN SHARE MODE")  # whoever has counted waits to store
        calls = [asyncio.create_task(personal(cases, person)) for _ in range(5)]
        await until_lock_waits(admin, 3)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(result.reason for result in results if isinstance(result, Refusal)) == ["limit_reached"] * 3
    keys = await cases.api_keys.list(person, "")
    assert await reason_of(cases.api_keys.rotate(person, keys[0].api_key_id, 60, ORIGIN)) == "limit_reached"
    await cases.api_keys.revoke(person, keys[0].api_key_id, ORIGIN)
    await personal(cases, person)


@pytest.mark.parametrize("what", ["create", "rotate"])
async def test_a_session_that_is_ended_while_a_call_waits_leaves_no_key(cases: Cases, admin: Any, what: str) -> None:
    person, thief = await cases.principal(), await cases.principal()
    old = await personal(cases, person)
    async with admin.transaction():
        await admin.execute("SELECT FROM control.users FOR UPDATE")
        rotating = cases.api_keys.rotate(thief, old.key.api_key_id, 60, ORIGIN)
        call = asyncio.ensure_future(personal(cases, thief) if what == "create" else rotating)
        await until_lock_waits(admin)
        assert await cases.sessions.revoke_many(person, "", ORIGIN, keep_current=True) == [thief.session_id]
    if what == "create":
        rotating.close()
    assert await reason_of(call) == "token_revoked"
    assert [one.api_key_id for one in await cases.api_keys.list(person, "")] == [old.key.api_key_id]


async def test_a_personal_token_acts_as_the_person_within_its_scopes(cases: Cases) -> None:
    person = await cases.principal()
    new = await personal(cases, person, DAY_S, "runs.read")
    program = await cases.admitted(await edge_token(cases, new.text))
    assert (program.kind, program.subject, program.org_id) == (PrincipalKind.USER, person.subject, person.org_id)
    assert program.effective_scopes == {Scope.RUNS_READ}
    everything = await cases.admitted(await edge_token(cases, (await personal(cases, person)).text))
    assert everything.effective_scopes == PERSON_KEY_SCOPES & person.effective_scopes


async def test_a_key_changes_nothing_about_who_gets_in(cases: Cases) -> None:
    person = await cases.principal()
    account, key = await cases.account(person)
    for text in (key, (await personal(cases, person)).text):
        program = await cases.admitted(await edge_token(cases, text))
        keys = cases.api_keys
        mine = (await keys.list(person, ""))[0].api_key_id
        for call in (
            keys.create(program, "", Wanted("n", (), DAY_S), ORIGIN),
            keys.create(program, account.service_account_id, Wanted("n"), ORIGIN),
            keys.rotate(program, mine, 60, ORIGIN),
            keys.revoke(program, mine, ORIGIN),
        ):
            assert await reason_of(call) == "missing_scope"
        token = f"Bearer {await edge_token(cases, text)}"
        assert await reason_of(cases.let_in(token, SessionOnly())) == "missing_scope"


async def test_whoever_leaves_the_org_leaves_its_tokens_without_effect(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    new = await personal(cases, person)
    token = await edge_token(cases, new.text)
    await admin.execute("UPDATE control.memberships SET role = 'viewer'")
    assert Scope.RUNS_WRITE not in (await cases.admitted(token)).effective_scopes
    await admin.execute("DELETE FROM control.memberships")
    assert await reason_of(cases.admitted(token)) == "token_revoked"
    assert await reason_of(cases.api_keys.exchange(new.text, Use.EDGE, ORIGIN)) == "invalid_api_key"


async def test_anothers_keys_are_as_good_as_not_there(cases: Cases) -> None:
    victim, stranger = await cases.principal("victim@example.org"), await cases.principal()
    account, _ = await cases.account(victim)
    [of_account] = await cases.api_keys.list(victim, account.service_account_id)
    own = (await personal(cases, victim)).key
    for service_account_id in (account.service_account_id, new_id("sva")):
        assert await reason_of(cases.api_keys.list(stranger, service_account_id)) == "not_found"
    for api_key_id in (own.api_key_id, of_account.api_key_id, new_id("apk")):
        assert await reason_of(cases.api_keys.revoke(stranger, api_key_id, ORIGIN)) == "not_found"
        assert await reason_of(cases.api_keys.rotate(stranger, api_key_id, 60, ORIGIN)) == "not_found"
    for service_account_id in (account.service_account_id, new_id("sva")):
        wanted = Wanted("n")
        assert await reason_of(cases.api_keys.create(stranger, service_account_id, wanted, ORIGIN)) == "not_found"


async def test_an_account_that_has_ended_gets_no_key(cases: Cases) -> None:
    person = await cases.principal()
    account, _ = await cases.account(person)
    await cases.service_accounts.revoke(person, account.service_account_id, ORIGIN)
    call = cases.api_keys.create(person, account.service_account_id, Wanted("n"), ORIGIN)
    assert await reason_of(call) == "not_found"
    assert len(await cases.api_keys.list(person, account.service_account_id)) == 1, "what it had can be seen"


async def test_an_account_that_is_kept_out_gets_no_key_and_its_keys_no_successor(cases: Cases) -> None:
    ada = await cases.principal()
    for end in ("block", "revoke"):
        account, _ = await cases.account(ada, end)
        account_id = account.service_account_id
        (key,) = await cases.api_keys.list(ada, account_id)
        if end == "block":
            await cases.blocks.block(account_id, ORIGIN)
        else:
            await cases.service_accounts.revoke(ada, account_id, ORIGIN)
        create = cases.api_keys.create(ada, account_id, Wanted("n"), ORIGIN)
        for call, field in (
            (create, "service_account_id"),
            (cases.api_keys.rotate(ada, key.api_key_id, 0, ORIGIN), "api_key_id"),
        ):
            with pytest.raises(Refusal) as refused:
                await call
            assert (refused.value.reason, refused.value.field) == ("not_found", field), end
        assert [one.replaced_by for one in await cases.api_keys.list(ada, account_id)] == [""]


async def test_an_ended_key_that_is_tried_over_and_over_is_on_record_once_a_minute(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    person = await cases.principal()
    new = await personal(cases, person)
    await cases.api_keys.revoke(person, new.key.api_key_id, ORIGIN)
    for minute in (1, 2):
        calls = [cases.api_keys.exchange(new.text, Use.EDGE, ORIGIN) for _ in range(10)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {result.reason for result in results if isinstance(result, Refusal)} == {"invalid_api_key"}
        assert await admin.fetchval(SEEN, "service_account.key_exchanged", "invalid_api_key") == minute
        await clock.advance(60)


async def test_when_a_key_was_used_is_written_down_beside_the_calls(cases: Cases, clock: FakeClock, admin: Any) -> None:
    person = await cases.principal()
    new = await personal(cases, person)
    await admin.execute("UPDATE control.api_keys SET prefix = ''")
    token = await edge_token(cases, new.text)
    used = "SELECT last_used_at, prefix FROM control.api_keys"
    assert tuple(await admin.fetchrow(used)) == (None, ""), "no call waits for it"
    await cases.api_keys.uses.write_down()
    assert tuple(await admin.fetchrow(used)) == (clock.now(), new.text[:12])
    await clock.advance(30)
    await cases.admitted(token)
    async with admin.transaction():
        await admin.execute("SELECT 1 FROM control.api_keys FOR UPDATE")
        await cases.api_keys.uses.write_down()
        assert await admin.fetchval(used) == clock.now() - timedelta(seconds=30), "it waits for nobody"
    admitted = await cases.admitted(token)
    await cases.api_keys.uses.write_down()
    assert await admin.fetchval(used) == clock.now()
    await clock.advance(30)
    assert (await cases.gate.decide(admitted, Scoped(Scope.RUNS_READ))).denied is None
    await cases.api_keys.uses.write_down()
    assert await admin.fetchval(used) == clock.now() - timedelta(seconds=30), "whoever asks about a key does not use it"


async def test_what_a_replica_keeps_in_mind_of_uses_is_bounded(cases: Cases, clock: FakeClock) -> None:
    uses = cases.api_keys.uses
    for number in range(MAX_NOTED_KEYS + 5):
        uses.note(f"apk_{number}", clock.now())
    assert len(uses._seen) == MAX_NOTED_KEYS


async def test_uses_that_are_being_written_when_the_process_drains_are_kept(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    new = await personal(cases, await cases.principal())
    await edge_token(cases, new.text)
    async with admin.transaction():
        await admin.execute("LOCK TABLE control.api_keys")
        writing = asyncio.create_task(cases.api_keys.uses.write_down())
        await until_lock_waits(admin)
        for number in range(MAX_NOTED_KEYS):
            cases.api_keys.uses.note(f"apk_{number}", clock.now())
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert len(cases.api_keys.uses._seen) == MAX_NOTED_KEYS, "those that came meanwhile have no room of their own"
    await cases.api_keys.uses.write_down()
    assert await admin.fetchval("SELECT last_used_at FROM control.api_keys") == clock.now()


async def test_a_key_of_the_release_before_works(cases: Cases, admin: Any) -> None:
    person = await cases.principal()
    account, key = await cases.account(person)
    stored = await admin.fetchval("SELECT key_hash FROM control.service_accounts")
    await admin.execute("DELETE FROM control.api_keys")
    await admin.execute("DELETE FROM control.service_accounts")
    await admin.execute(
        """INSERT INTO control.service_accounts (service_account_id, org_id, name, key_hash, created_by, created_at)
        VALUES ($1, $2, 'n', $3, 'usr_1', now())""",
        account.service_account_id,
        person.org_id,
        stored,
    )
    await edge_token(cases, key)
    await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    [known] = await cases.api_keys.list(person, account.service_account_id)
    await cases.api_keys.revoke(person, known.api_key_id, ORIGIN)
    assert await admin.fetchval("SELECT key_hash FROM control.service_accounts") is None, "there, too, it has ended"


async def test_a_sync_token_does_not_outlive_its_key(cases: Cases, clock: FakeClock) -> None:
    person = await cases.principal()
    new = await personal(cases, person, 120)
    program = await cases.admitted(await edge_token(cases, new.text))
    minted = await cases.sync_tokens.mint(program, [f"user:{person.subject}:runs"], 900, Surface.UNSTATED, ORIGIN)
    assert minted.expires_at <= clock.now() + timedelta(seconds=120)


BLOCKS = {
    "account": "UPDATE control.service_accounts SET blocked_at = now() WHERE service_account_id = $1",
    "person": "UPDATE control.users SET blocked_at = now() WHERE user_id = $1",
}


@pytest.mark.parametrize("owner", BLOCKS)
async def test_a_mint_waits_for_a_block_of_its_caller_and_is_refused(cases: Cases, admin: Any, owner: str) -> None:
    person = await cases.principal()
    key = (await cases.account(person, "script"))[1] if owner == "account" else (await personal(cases, person)).text
    program = await cases.admitted(await edge_token(cases, key))
    async with admin.transaction():
        await admin.execute(BLOCKS[owner], program.subject)
        mint = cases.sync_tokens.mint(program, [f"org:{person.org_id}:runs"], 900, Surface.UNSTATED, ORIGIN)
        minting = asyncio.create_task(reason_of(mint))
        await until_lock_waits(admin)
    assert await minting == "token_revoked"


async def test_a_key_is_judged_and_recorded_in_its_org_wherever_its_owner_acts(cases: Cases, admin: Any) -> None:
    person, other = await cases.principal(), await cases.principal("other@example.org")
    org_id = (await cases.orgs.create(other, "team", ORIGIN)).org.org_id
    own = (await personal(cases, person, DAY_S, "runs.write")).key
    as_viewer = replace(person, org_id=org_id, standing=role_scopes(Role.VIEWER))
    new, _ = await cases.api_keys.rotate(as_viewer, own.api_key_id, 60, ORIGIN)
    assert new.key.scopes == {Scope.RUNS_WRITE}
    await cases.api_keys.revoke(as_viewer, own.api_key_id, ORIGIN)
    recorded = "SELECT DISTINCT org_id FROM control.audit_events WHERE action LIKE '%api_key%' OR action LIKE 'key.%'"
    assert [row["org_id"] for row in await admin.fetch(recorded)] == [person.org_id]
    await admin.execute("UPDATE control.memberships SET role = 'viewer' WHERE user_id = $1", person.subject)
    as_owner = replace(person, org_id=org_id)
    assert await reason_of(cases.api_keys.rotate(as_owner, new.key.api_key_id, 60, ORIGIN)) == "missing_scope"


async def test_keys_that_work_are_listed_before_those_that_have_ended(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.control.api_keys.store.MAX_LISTED", 2)
    person = await cases.principal()
    old = (await personal(cases, person)).key.api_key_id
    for _ in range(2):
        await cases.api_keys.revoke(person, (await personal(cases, person)).key.api_key_id, ORIGIN)
    listed = await cases.api_keys.list(person, "")
    assert (listed[0].api_key_id, len(listed)) == (old, 2)
