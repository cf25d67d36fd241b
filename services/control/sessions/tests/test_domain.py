"""The refresh-counter machine: what can a client, a thief and a lossy network do to a session."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oa_base.refusal import Refusal
from services.control.sessions.domain import (
    SESSION_IDLE_TTL,
    RevokeReason,
    Session,
    access_token_id,
    decide_refresh,
    parse_refresh_token,
    refresh_token,
    used_counter,
)
from services.control.tokens.domain import ACCESS_TTL

KEY = b"a key of thirty-two bytes or more"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "dev_01JD8V0000000000000000000A"
OTHER_DEVICE = "dev_01JD8V0000000000000000000B"
SESSION_ID = "ses_01JD8V00000000000000000000"
MICROSECOND = timedelta(microseconds=1)


def new_session() -> Session:
    return Session(SESSION_ID, "usr_1", "org_1", DEVICE, START, START)


class RefreshMachine(RuleBasedStateMachine):
    """A session, and time. The model: how often it rotated, and whether the newest tokens were used."""

    def __init__(self) -> None:
        super().__init__()
        self.session = new_session()
        self.now = START
        self.used = False
        self.seen = 0

    @property
    def alive(self) -> bool:
        return self.session.revoked_at is None and self.now < self.session.expires_at

    @rule(seconds=st.one_of(st.integers(0, 25), st.integers(0, 40 * 86_400)))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.alive)
    @rule()
    def refresh_with_the_current(self) -> None:
        done = decide_refresh(self.session, self.session.counter, DEVICE, self.now)
        assert done.reason is None
        assert done.session.counter == self.session.counter + 1
        self.session, self.used = done.session, False
        self.seen += 1

    @precondition(lambda self: self.alive)
    @rule()
    def use_the_newest_access_token(self) -> None:
        self.session = replace(self.session, used_counter=self.session.counter)
        self.used = True

    @precondition(lambda self: self.alive and self.session.counter > 0)
    @rule()
    def refresh_again_because_the_answer_was_lost(self) -> None:
        done = decide_refresh(self.session, self.session.counter - 1, DEVICE, self.now)
        assert done.reason == ("token_replay" if self.used else None)
        assert done.session.counter == self.session.counter
        # What is given holds an access token that has not expired.
        assert self.used or self.now < done.session.refreshed_at + ACCESS_TTL
        self.session = done.session

    @precondition(lambda self: self.alive)
    @rule(back=st.integers(2, 5))
    def replay_an_old_one(self, back: int) -> None:
        done = decide_refresh(self.session, self.session.counter - back, DEVICE, self.now)
        assert done.reason == "token_replay"
        self.session = done.session

    @precondition(lambda self: self.alive)
    @rule(offset=st.integers(-1, 0))
    def steal(self, offset: int) -> None:
        done = decide_refresh(self.session, self.session.counter + offset, OTHER_DEVICE, self.now)
        assert done.reason == "token_replay"
        self.session = done.session

    @precondition(lambda self: not self.alive)
    @rule(offset=st.integers(-2, 1), device=st.sampled_from([DEVICE, OTHER_DEVICE]))
    def nothing_revives_it(self, offset: int, device: str) -> None:
        done = decide_refresh(self.session, self.session.counter + offset, device, self.now)
        assert done.reason in ("token_replay", "token_revoked", "reauth_required")
        assert done.session is self.session

    @invariant()
    def the_counter_is_the_number_of_rotations(self) -> None:
        assert self.session.counter == self.seen

    @invariant()
    def a_revoked_session_says_why(self) -> None:
        assert (self.session.revoked_at is None) == (self.session.revoke_reason is None)


TestRefreshMachine = RefreshMachine.TestCase


def test_a_lost_answer_is_given_again_until_it_was_used_however_late() -> None:
    rotated = decide_refresh(new_session(), 0, DEVICE, START).session
    soon = decide_refresh(rotated, 0, DEVICE, START + timedelta(seconds=31))
    assert (soon.reason, soon.session) == (None, rotated)
    late = decide_refresh(rotated, 0, DEVICE, START + timedelta(days=29))
    assert (late.reason, late.session.counter) == (None, 1)
    assert late.session.refreshed_at == START + timedelta(days=29), "the access token in it is a new one"
    used = decide_refresh(replace(rotated, used_counter=1), 0, DEVICE, START)
    assert used.reason == "token_replay"
    assert used.session.revoke_reason is RevokeReason.TOKEN_REPLAY


def test_the_old_access_token_says_nothing_about_the_new_refresh_token() -> None:
    rotated = decide_refresh(replace(new_session(), used_counter=0), 0, DEVICE, START).session
    assert decide_refresh(rotated, 0, DEVICE, START).reason is None


def test_a_token_that_a_failover_forgot_is_the_current_one() -> None:
    done = decide_refresh(new_session(), 3, DEVICE, START)
    assert (done.reason, done.session.counter) == (None, 4)


@pytest.mark.parametrize("jti", ["", ".", "ses_1", f"{SESSION_ID}.", f"{SESSION_ID}.x", f"{SESSION_ID}.²", "ses_2.7"])
def test_an_id_that_is_not_of_the_session_marks_nothing(jti: str) -> None:
    assert used_counter(SESSION_ID, jti) == new_session().used_counter
    assert used_counter(SESSION_ID, access_token_id(SESSION_ID, 7)) == 7


def test_an_unused_session_ends_after_thirty_days() -> None:
    assert decide_refresh(new_session(), 0, DEVICE, START + SESSION_IDLE_TTL - MICROSECOND).reason is None
    assert decide_refresh(new_session(), 0, DEVICE, START + SESSION_IDLE_TTL).reason == "reauth_required"


@given(st.integers(0, 10**12))
def test_a_token_says_which_session_and_counter_it_is_of(counter: int) -> None:
    parsed = parse_refresh_token(KEY, refresh_token(KEY, SESSION_ID, counter))
    assert (parsed.session_id, parsed.counter) == (SESSION_ID, counter)


@given(st.integers(0, 10**6), st.data())
def test_a_token_with_any_character_changed_is_none(counter: int, data: st.DataObject) -> None:
    token = refresh_token(KEY, SESSION_ID, counter)
    place = data.draw(st.integers(0, len(token) - 1))
    # The last character of unpadded base64 holds two bits that mean nothing; they are part of the text all the same.
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != token[place]))
    with pytest.raises(Refusal) as refused:
        parse_refresh_token(KEY, token[:place] + other + token[place + 1 :])
    assert refused.value.reason == "invalid_token"


def test_a_token_of_another_installation_is_none() -> None:
    with pytest.raises(Refusal, match="invalid_token"):
        parse_refresh_token(b"another key of thirty-two bytes..", refresh_token(KEY, SESSION_ID, 3))
