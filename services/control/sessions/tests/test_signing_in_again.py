"""Signing in again on a device: the session that is there goes on, if it is the same person's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.audit.domain import Action, AuditEntry
from services.control.policy.domain import Role
from services.control.sessions.domain import (
    SESSION_IDLE_TTL,
    SESSION_MAX_TTL,
    RefreshToken,
    RevokeReason,
    Session,
    decide_refresh,
    decide_sign_in,
)
from services.control.sync_tokens.app import Mint
from services.control.tests.cases import ORIGIN, Cases, reason_of

ADA, BOB = "ada@example.org", "bob@example.org"
DEVICE = "dev_01JD8V0000000000000000000A"
START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_the_session_goes_on_where_it_was(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in(ADA)
    ada = await cases.admitted(first.tokens.access_token)
    org = await cases.orgs.create(ada, "Lovelace", ORIGIN)
    await cases.sessions.switch(ada, org.org.org_id, ORIGIN)
    await clock.advance(10_000)

    again = await cases.signed_in(ADA, first.session.device_id, first.tokens.refresh_token)
    assert again.session.session_id == first.session.session_id
    assert again.session.org_id == again.tokens.org_id == org.org.org_id
    assert again.tokens.refresh_token != first.tokens.refresh_token
    caller = await cases.admitted(again.tokens.access_token)
    assert ada.signed_in_at is not None
    assert caller.signed_in_at == ada.signed_in_at + timedelta(seconds=10_000)
    assert caller.standing == ada.standing, "an owner, in this org too"
    [listed] = await cases.sessions.list(caller)
    assert listed.created_at == first.session.created_at

    # A refresh is no sign-in.
    await clock.advance(5_000)
    refreshed = await cases.sessions.refresh(again.tokens.refresh_token, first.session.device_id, ORIGIN)
    assert (await cases.admitted(refreshed.access_token)).signed_in_at == caller.signed_in_at


async def test_its_maximum_lifetime_begins_anew(cases: Cases, clock: FakeClock) -> None:
    signed_in = await cases.signed_in(ADA)
    device = signed_in.session.device_id
    while clock.now() + timedelta(days=20) < signed_in.session.created_at + SESSION_MAX_TTL:
        await clock.advance(timedelta(days=20).total_seconds())
        signed_in = replace(
            signed_in, tokens=await cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN)
        )
    again = await cases.signed_in(ADA, device, signed_in.tokens.refresh_token)
    assert again.session.session_id == signed_in.session.session_id
    await clock.advance(timedelta(days=20).total_seconds())
    later = await cases.sessions.refresh(again.tokens.refresh_token, device, ORIGIN)
    caller = await cases.admitted(later.access_token)
    assert [one.session_id for one in await cases.sessions.list(caller)] == [again.session.session_id]
    entry = AuditEntry(Action.SYNC_TOKEN_MINTED, ORIGIN, caller.subject, caller.org_id, "")
    async with cases.transactions.begin() as tx:
        mint = Mint(caller, list(Role), entry)
        assert await tx.mints.record([mint], clock.now()) == [clock.now() + SESSION_IDLE_TTL]
        assert list(await cases.sessions.end_for_operator(tx, caller.subject, "", ORIGIN)) == [caller.session_id]
    assert await reason_of(cases.admitted(later.access_token)) == "token_revoked"


async def test_an_old_session_that_goes_on_is_counted(cases: Cases, admin: Any) -> None:
    session = (await cases.signed_in(ADA)).session
    await admin.execute(
        "UPDATE control.sessions "
        "SET created_at = now() - $1::interval, refreshed_at = now(), signed_in_again_at = now()",
        2 * SESSION_MAX_TTL,
    )
    assert (await cases.blocks.get(session.user_id)).live_sessions == 1


async def test_an_answer_that_was_lost_is_given_again(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in(ADA)
    kept = first.tokens.refresh_token
    lost = await cases.signed_in(ADA, first.session.device_id, kept)
    await clock.advance(60)
    assert (await cases.sessions.refresh(kept, first.session.device_id, ORIGIN)) == lost.tokens
    await clock.advance(60)
    again = await cases.signed_in(ADA, first.session.device_id, kept)
    assert again.tokens == lost.tokens


@pytest.mark.parametrize("whose", ["nobody's", "another person's", "another device's", "an ended one's"])
async def test_any_other_token_begins_a_new_session(cases: Cases, admin: Any, whose: str) -> None:
    here = await cases.signed_in(ADA)
    device = here.session.device_id
    token, theirs = "ort_x", ""
    if whose == "another person's":
        bob = await cases.signed_in(BOB, device)
        token, theirs = bob.tokens.refresh_token, bob.session.session_id
    elif whose == "another device's":
        other = await cases.signed_in(ADA)
        token, theirs = other.tokens.refresh_token, other.session.session_id
    elif whose == "an ended one's":
        token = here.tokens.refresh_token
        await cases.sessions.revoke(await cases.admitted(here.tokens.access_token), "", ORIGIN)
    again = await cases.signed_in(ADA, device, token)
    assert again.session.session_id not in (here.session.session_id, theirs)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(here.tokens.access_token)
    alive = await admin.fetch("SELECT session_id FROM control.sessions WHERE revoked_at IS NULL")
    assert {row["session_id"] for row in alive} == {again.session.session_id} | ({theirs} if theirs else set())


async def test_a_stolen_token_ends_the_session_and_whoever_signs_in_gets_a_new_one(cases: Cases, admin: Any) -> None:
    first = await cases.signed_in(ADA)
    device, stolen = first.session.device_id, first.tokens.refresh_token
    thief = await cases.sessions.refresh(stolen, device, ORIGIN)
    await cases.admitted(thief.access_token)
    again = await cases.signed_in(ADA, device, stolen)
    assert again.session.session_id != first.session.session_id
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(thief.access_token)
    trail = "SELECT action, reason FROM control.audit_events ORDER BY audit_id DESC LIMIT 2"
    assert [tuple(row) for row in await admin.fetch(trail)] == [
        ("session.signed_in", ""),
        ("session.revoked", "token_replay"),
    ]


def _session(number: int, counter: int, used: int) -> Session:
    return Session(f"ses_{number}", "usr_1", "org_1", DEVICE, START, START, counter, used)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), max_size=3),
    st.none() | st.tuples(st.integers(0, 3), st.integers(0, 4)),
    st.integers(0, 200).map(lambda days: START + timedelta(days=days)),
)
def test_at_most_one_goes_on_exactly_where_a_refresh_would_be_granted(
    rows: list[tuple[int, int]], brought: tuple[int, int] | None, now: datetime
) -> None:
    sessions = [_session(number, counter, used) for number, (counter, used) in enumerate(rows)]
    presented = RefreshToken(f"ses_{brought[0]}", brought[1]) if brought else None
    entered = decide_sign_in(sessions, presented, now)
    named = [one for one in sessions if presented and one.session_id == presented.session_id]
    granted = [one for one in named if presented and decide_refresh(one, presented.counter, DEVICE, now).reason is None]
    assert [entered.going_on.session_id] if entered.going_on else [one.session_id for one in granted] == []
    if entered.going_on:
        assert entered.going_on.signed_in_at == now
        assert entered.going_on.revoked_at is None
    gone = {one.session_id for one in granted}
    assert [one.session_id for one in entered.ending] == [
        one.session_id for one in sessions if one.session_id not in gone
    ]
    for one in entered.ending:
        assert one.revoke_reason in (RevokeReason.DEVICE_REPLACED, RevokeReason.TOKEN_REPLAY)
        assert one.revoked_at == now
