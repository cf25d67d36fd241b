"""Which key signs and which ones verify, at any time and after any rotations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from services.control.signing_keys.domain import ALWAYS, KeyRecord, KeyState, rotated, signing_key_id, state_of
from services.control.signing_keys.limits import SigningKeyLimits
from services.control.tokens.domain import ACCESS_TTL, API_KEY_EDGE_TTL, WORKER_TTL

LIMITS = SigningKeyLimits(published_for=timedelta(minutes=10))
START = ALWAYS + timedelta(days=20_000)
OWN = "own"
LATE = timedelta(seconds=30)
"""How much later than another one a replica may know, or have it."""


def test_an_old_key_outlives_every_token_that_it_signed() -> None:
    assert LIMITS.kept_for >= max(ACCESS_TTL, API_KEY_EDGE_TTL, WORKER_TTL) + timedelta(minutes=5)


def test_the_key_of_the_settings_signs_until_another_one_does() -> None:
    assert signing_key_id([], {OWN}, OWN, START) == OWN
    records = rotated([], [OWN], KeyRecord("next", b"", START, START), LIMITS)
    assert [record.key_id for record in records] == [OWN, "next"]
    signs = START + LIMITS.published_for
    for moment, signing, states in (
        (START, OWN, [KeyState.SIGNING, KeyState.PUBLISHED]),
        (signs - LATE, OWN, [KeyState.SIGNING, KeyState.PUBLISHED]),
        (signs, "next", [KeyState.VERIFYING, KeyState.SIGNING]),
        (signs + LIMITS.kept_for, "next", [KeyState.ENDED, KeyState.SIGNING]),
    ):
        assert signing_key_id(records, {OWN, "next"}, OWN, moment) == signing
        assert [state_of(record, signing, moment) for record in records] == states


def test_a_stolen_key_is_good_for_nothing_from_that_moment_on() -> None:
    waiting = rotated([], [OWN], KeyRecord("waiting", b"", START, START), LIMITS)
    later = START + LATE
    with pytest.raises(Refusal, match="already_exists"):
        rotated(waiting, [OWN], KeyRecord("more", b"", later, later), LIMITS)
    with pytest.raises(Refusal, match="not_found"):
        rotated(waiting, [OWN], KeyRecord("more", b"", later, later), LIMITS, stolen="another")
    records = rotated(waiting, [OWN], KeyRecord("now", b"", later, later), LIMITS, stolen=OWN)
    assert {record.key_id for record in records if record.has_ended(later)} == {OWN, "waiting"}
    able = {OWN, "waiting", "now"}
    assert signing_key_id(records, able, OWN, later) == "now"
    assert signing_key_id(records, able, OWN, later - LATE / 2) in able, "also by a clock that is behind"
    assert signing_key_id(records, {OWN}, OWN, later) is None, "and never the stolen one, whatever can't be opened"
    assert signing_key_id(records, {"fresh"}, "fresh", later) == "fresh"


@given(st.lists(st.integers(0, 7200), min_size=1, max_size=6), st.integers(0, 30), st.integers(0, 30))
def test_nobody_meets_a_token_of_a_key_that_is_not_published(pauses: list[int], late: int, early: int) -> None:
    """Whatever is rotated when: what a replica signs, any other one takes, from then on until it expires."""
    records: list[KeyRecord] = []
    now = START
    moments = []
    for number, pause in enumerate(pauses):
        now += timedelta(seconds=pause)
        try:
            records = rotated(records, [OWN], KeyRecord(f"k{number}", b"", now, now), LIMITS)
        except Refusal:
            continue
        moments += [now, now + LIMITS.published_for, now + LIMITS.published_for + timedelta(seconds=late)]
    made = {record.key_id: record.made_at for record in records}
    for moment in moments:
        key_id = signing_key_id(records, {OWN, *made}, OWN, moment)
        assert key_id is not None
        [signed] = [record for record in records if record.key_id == key_id]
        if key_id != OWN:
            assert moment - signed.made_at >= LIMITS.published_for, "everybody has had it for that long"
        expires = moment + ACCESS_TTL - timedelta(seconds=early)
        assert not signed.has_ended(expires)
