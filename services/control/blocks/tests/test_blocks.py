"""Blocking over the real database: what is open ends, nobody gets in, and what has ended stays ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.api_keys.app.keys import Wanted
from services.control.api_keys.domain import Use
from services.control.audit.domain import OPERATOR
from services.control.audit_log.domain import Filters, Outcome
from services.control.sessions.app import SessionTokens
from services.control.sign_in.domain.challenge import code_of
from services.control.tests.cases import ORIGIN, Cases, reason_of
from services.control.tests.harness import HMAC_KEY, new_id

EMAIL = "ada@example.org"


async def test_a_blocked_person_is_out_and_stays_out_until_a_new_sign_in(cases: Cases, clock: FakeClock) -> None:
    device = new_id("dev")
    signed_in = await cases.signed_in(EMAIL, device)
    person = await cases.admitted(signed_in.tokens.access_token)
    key = await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)
    program = (await cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN)).token

    blocked = await cases.blocks.block(f" {EMAIL.upper()} ", ORIGIN)
    assert (blocked.subject, blocked.blocked_at) == (person.subject, clock.now())
    assert (blocked.live_sessions, blocked.live_keys) == (0, 0)
    assert await cases.blocks.block(person.subject, ORIGIN) == blocked

    async def still_out() -> None:
        for token in (signed_in.tokens.access_token, program):
            assert await reason_of(cases.admitted(token)) == "token_revoked"
        assert (
            await reason_of(cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN)) == "token_revoked"
        )
        assert await reason_of(cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN)) == "invalid_api_key"

    await still_out()
    assert (await cases.blocks.unblock(EMAIL, ORIGIN)).blocked_at is None
    await still_out()
    await clock.advance(120)
    await cases.signed_in(EMAIL, device)


async def test_nobody_is_let_in_who_is_blocked_whatever_has_not_ended(cases: Cases, admin: Any) -> None:
    device = new_id("dev")
    signed_in = await cases.signed_in(EMAIL, device)
    await admin.execute("UPDATE control.users SET blocked_at = now()")
    assert await reason_of(cases.admitted(signed_in.tokens.access_token)) == "token_revoked"
    refresh = cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN)
    assert await reason_of(refresh) == "token_revoked"


async def test_everything_that_a_block_ends_is_told(cases: Cases, admin: Any) -> None:
    first, second = await cases.signed_in(EMAIL), await cases.signed_in(EMAIL)
    person = await cases.admitted(second.tokens.access_token)
    key = await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)
    await cases.blocks.block(person.subject, ORIGIN)
    rows = await admin.fetch("SELECT * FROM control.revocations ORDER BY position")
    told = {row["session_id"]: row["reason"] for row in rows if row["session_id"]}
    assert [(row["subject"], row["place_change"]) for row in rows] == [*[("", "")] * 3, (person.subject, "lost")]
    ids = (first.session.session_id, second.session.session_id)
    assert told == dict.fromkeys(ids, "admin_revoked") | {key.key.api_key_id: "owner_blocked"}
    row = await admin.fetchrow("SELECT actor, target FROM control.audit_events WHERE action = 'subject.blocked'")
    assert tuple(row) == ("operator", person.subject)


async def test_the_ends_of_all_sessions_and_keys_are_recorded_where_they_acted(cases: Cases) -> None:
    ada = await cases.principal(EMAIL)
    org_id = (await cases.orgs.create(ada, "team", ORIGIN)).org.org_id
    await cases.sessions.switch(ada, org_id, ORIGIN)
    own = await cases.signed_in(EMAIL)
    person = await cases.admitted(own.tokens.access_token)
    key = await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)
    await cases.blocks.block(EMAIL, ORIGIN)

    (told,) = (await cases.audit_log.list(org_id, Filters(actor=OPERATOR))).events
    assert (told.action, told.target, told.reason) == ("session.revoked", ada.session_id, "admin_revoked")
    assert told.outcome is Outcome.DONE
    ended = {ada.session_id: org_id, own.session.session_id: ada.org_id, key.key.api_key_id: ada.org_id}
    mine = [event for event in (await cases.audit_log.own(ada)).events if event.actor == OPERATOR]
    assert {event.target: event.org_id for event in mine} == ended | {ada.subject: ada.org_id}
    assert [(event.action, event.reason) for event in mine if event.target == key.key.api_key_id] == [
        ("api_key.revoked", "owner_blocked")
    ]


async def test_a_blocked_service_account_is_out_and_comes_back_with_its_keys(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    account, key = await cases.account(await cases.principal())
    token = (await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token
    await cases.blocks.block(account.service_account_id, ORIGIN)
    assert await reason_of(cases.admitted(token)) == "token_revoked"
    assert await reason_of(cases.api_keys.exchange(key, Use.WORKER, ORIGIN)) == "invalid_api_key"
    row = await admin.fetchrow("SELECT subject, issued_before, reason FROM control.revocations")
    assert tuple(row) == (account.service_account_id, clock.now(), "account_blocked")
    await cases.blocks.unblock(account.service_account_id, ORIGIN)
    changes = await admin.fetch("SELECT subject, place_change FROM control.revocations ORDER BY position")
    account_id = account.service_account_id
    assert [tuple(one) for one in changes] == [(account_id, "lost"), (account_id, "back")]
    await cases.admitted((await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token)


async def test_a_code_that_was_sent_before_the_block_signs_nobody_in(cases: Cases) -> None:
    device = new_id("dev")
    await cases.signed_in(EMAIL)
    started = await cases.started(EMAIL, device)
    code = cases.letters.codes[EMAIL]
    await cases.blocks.block(EMAIL, ORIGIN)
    assert await reason_of(cases.sign_in.verify(started.challenge_id, code, device, ORIGIN)) == "challenge_expired"


async def test_a_stranger_is_answered_alike_and_the_mailbox_gets_no_code(cases: Cases) -> None:
    await cases.signed_in(EMAIL)
    await cases.blocks.block(EMAIL, ORIGIN)
    device = new_id("dev")
    started = await cases.started(EMAIL, device)
    other = await cases.started("bob@example.org", device)
    assert (started.expires_at, started.resend_after) == (other.expires_at, other.resend_after)
    letter = next(letter for letter in cases.letters.sent if letter.facts["challenge_id"] == started.challenge_id)
    assert "code" not in letter.facts
    for guess in ("12345678", code_of(HMAC_KEY.encode(), started.challenge_id)):
        call = cases.sign_in.verify(started.challenge_id, guess, device, ORIGIN)
        assert await reason_of(call) == "code_incorrect"


@pytest.mark.parametrize(
    "who", ["usr_01JD8V0000000000000000000A", "sva_01JD8V0000000000000000000A", "nobody@example.org"]
)
async def test_nobody_is_not_found(cases: Cases, who: str) -> None:
    for call in (cases.blocks.get(who), cases.blocks.block(who, ORIGIN), cases.blocks.unblock(who, ORIGIN)):
        assert await reason_of(call) == "not_found"


async def test_nothing_gets_past_a_block_that_comes_at_the_same_time(cases: Cases, admin: Any) -> None:
    """Sign-ins, refreshes and exchanges race a block: whatever they gave is ended by it, or was never given."""
    for turn in range(6):
        email, device = f"p{turn}@example.org", new_id("dev")
        signed_in = await cases.signed_in(email, device)
        person = await cases.admitted(signed_in.tokens.access_token)
        key = await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)
        again = new_id("dev")
        started = await cases.started(email, again)
        results = await asyncio.gather(
            cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN),
            cases.sign_in.verify(started.challenge_id, cases.letters.codes[email], again, ORIGIN),
            cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN),
            cases.api_keys.create(person, "", Wanted("late", (), 3600), ORIGIN),
            cases.blocks.block(email, ORIGIN),
            return_exceptions=True,
        )
        broken = [each for each in results if isinstance(each, BaseException) and not isinstance(each, Refusal)]
        assert broken == []
        await cases.blocks.unblock(email, ORIGIN)
        alive = "SELECT count(*) FROM control.sessions WHERE user_id = $1 AND revoked_at IS NULL"
        assert await admin.fetchval(alive, person.subject) == 0
        alive = "SELECT count(*) FROM control.api_keys WHERE owner = $1 AND revoked_at IS NULL"
        assert await admin.fetchval(alive, person.subject) == 0
        refreshed = results[0]
        if isinstance(refreshed, SessionTokens):
            assert await reason_of(cases.admitted(refreshed.access_token)) == "token_revoked"
