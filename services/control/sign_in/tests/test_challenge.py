"""Sign-in codes: guesses, time, and which code is the live one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.control.sign_in.domain.challenge import (
    CODE_DIGITS,
    CODE_TTL,
    MAX_GUESSES,
    RESEND_AFTER,
    Challenge,
    Ended,
    code_hash,
    code_of,
    judge,
    resend_wait,
)

KEY = b"a key of thirty-two bytes or more"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "dev_01JD8V0000000000000000000A"
CHALLENGE_ID = "chl_01JD8V00000000000000000000"
RIGHT = code_hash(KEY, CHALLENGE_ID, "12345678")
WRONG = code_hash(KEY, CHALLENGE_ID, "12345679")


def new_challenge() -> Challenge:
    return Challenge(CHALLENGE_ID, "ada@example.org", DEVICE, RIGHT, START)


@given(st.lists(st.booleans(), max_size=12))
def test_at_most_five_guesses_are_looked_at_whatever_they_are(guesses: list[bool]) -> None:
    challenge, looked_at, signed_in = new_challenge(), 0, False
    for right in guesses:
        before = challenge
        verdict = judge(challenge, DEVICE, RIGHT if right else WRONG, START)
        challenge = verdict.challenge
        looked_at += challenge.guesses - before.guesses
        if verdict.reason is None:
            assert right
            assert not signed_in, "a code is good once"
            signed_in = True
    assert looked_at <= MAX_GUESSES
    assert signed_in == (True in guesses[:MAX_GUESSES])


def test_what_each_guess_is_told() -> None:
    challenge, told = new_challenge(), []
    for _ in range(MAX_GUESSES + 2):
        verdict = judge(challenge, DEVICE, WRONG, START)
        challenge = verdict.challenge
        told.append((verdict.reason, verdict.guesses_left))
    assert told == [
        ("code_incorrect", 4),
        ("code_incorrect", 3),
        ("code_incorrect", 2),
        ("code_incorrect", 1),
        ("too_many_guesses", 0),
        ("too_many_guesses", 0),
        ("too_many_guesses", 0),
    ]
    assert judge(challenge, DEVICE, RIGHT, START).reason == "too_many_guesses"


def test_the_right_code_from_another_device_is_a_wrong_guess() -> None:
    verdict = judge(new_challenge(), "dev_01JD8V0000000000000000000B", RIGHT, START)
    assert verdict.reason == "code_incorrect"
    assert verdict.challenge.guesses == 1


@pytest.mark.parametrize("ended", [Ended.USED, Ended.REPLACED])
def test_an_ended_challenge_takes_no_guess(ended: Ended) -> None:
    verdict = judge(replace(new_challenge(), ended=ended), DEVICE, RIGHT, START)
    assert verdict.reason == "challenge_expired"
    assert verdict.challenge.guesses == 0


def test_a_code_is_good_for_ten_minutes_and_not_a_microsecond_longer() -> None:
    last = START + CODE_TTL - timedelta(microseconds=1)
    assert judge(new_challenge(), DEVICE, RIGHT, last).reason is None
    assert judge(new_challenge(), DEVICE, RIGHT, START + CODE_TTL).reason == "challenge_expired"


@given(st.integers(0, 1200))
def test_the_next_code_waits_only_for_one_that_can_still_be_used(age_s: int) -> None:
    now = START + timedelta(seconds=age_s)
    wait = resend_wait(new_challenge(), now)
    assert wait == max(timedelta(0), RESEND_AFTER - timedelta(seconds=age_s))
    assert resend_wait(replace(new_challenge(), ended=Ended.USED), now) == timedelta(0)
    assert resend_wait(None, now) == timedelta(0)


@given(st.text(max_size=30))
def test_every_challenge_has_a_code_of_eight_digits(challenge_id: str) -> None:
    code = code_of(KEY, challenge_id)
    assert len(code) == CODE_DIGITS
    assert code.isdecimal()


def test_the_code_depends_on_key_and_challenge() -> None:
    codes = {code_of(key, f"chl_{number}") for key in (KEY, b"other") for number in range(500)}
    assert len(codes) >= 999, "of 1000 of 10^8, hardly two are alike"


def test_the_hash_depends_on_key_challenge_and_code() -> None:
    hashes = {
        code_hash(key, challenge_id, code)
        for key in (KEY, b"other")
        for challenge_id in (CHALLENGE_ID, "chl_other")
        for code in ("12345678", "87654321")
    }
    assert len(hashes) == 8
