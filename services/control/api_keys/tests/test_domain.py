"""What a new key may do, when it ends, and what of it may be shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from services.control.api_keys.domain import (
    API_KEY_BYTES,
    PERSON_KEY_SCOPES,
    SERVICE_ACCOUNT_KEY_SCOPES,
    ApiKey,
    api_key,
    end_of_key,
    end_of_rotated,
    end_of_successor,
    is_api_key,
    scopes_of_key,
    visible_prefix,
)
from services.control.api_keys.limits import MAX_OVERLAP_S, MIN_TTL_S
from services.control.policy.domain import WORKER_SCOPES, Scope, Scopes
from services.control.policy.tests.principals import ME, MY_ORG, NOW, scope_sets

POSSIBLE = st.sampled_from([PERSON_KEY_SCOPES, SERVICE_ACCOUNT_KEY_SCOPES])
KEY = ApiKey("apk_1", ME, MY_ORG, "n", "oak_", PERSON_KEY_SCOPES, NOW, NOW + timedelta(days=10))


@given(scope_sets, POSSIBLE, scope_sets)
def test_a_key_never_does_more_than_whoever_made_it(asked: Scopes, possible: Scopes, creator: Scopes) -> None:
    may = possible & (creator | WORKER_SCOPES)
    if asked <= may:
        assert scopes_of_key(sorted(asked), possible, creator) == (asked or may)
        return
    with pytest.raises(Refusal) as refused:
        scopes_of_key(sorted(asked), possible, creator)
    assert refused.value.reason == ("missing_scope" if asked <= possible else "invalid_value")


def test_no_key_makes_keys_or_changes_who_gets_in() -> None:
    assert Scope.SERVICE_ACCOUNTS_WRITE not in PERSON_KEY_SCOPES | SERVICE_ACCOUNT_KEY_SCOPES
    assert PERSON_KEY_SCOPES.isdisjoint(WORKER_SCOPES)


def test_a_word_that_is_no_scope_is_refused_and_not_repeated() -> None:
    with pytest.raises(Refusal) as refused:
        scopes_of_key(["runs.read", "hunter2"], PERSON_KEY_SCOPES, frozenset(Scope))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "scopes")
    assert "hunter2" not in refused.value.message


def test_what_is_shown_of_a_key_is_its_beginning_and_leaves_the_rest_unknown() -> None:
    key = api_key(bytes(range(API_KEY_BYTES)))
    assert is_api_key(key)
    assert key.startswith(visible_prefix(key))
    assert len(key) - len(visible_prefix(key)) >= 32


@pytest.mark.parametrize("ttl_s", [1, MIN_TTL_S - 1, 10 * 86_400 + 1])
def test_a_lifetime_outside_the_bounds_is_refused(ttl_s: int) -> None:
    with pytest.raises(Refusal, match="invalid_value"):
        end_of_key(ttl_s, NOW, timedelta(days=10))


def test_only_a_service_accounts_key_may_be_without_an_end() -> None:
    assert end_of_key(0, NOW, None) is None
    with pytest.raises(Refusal, match="missing_field"):
        end_of_key(0, NOW, timedelta(days=10))
    for ttl_s in (MIN_TTL_S, 10 * 86_400):
        assert end_of_key(ttl_s, NOW, timedelta(days=10)) == NOW + timedelta(seconds=ttl_s)


def test_a_rotated_key_ends_after_the_overlap_and_never_later_than_it_would_have() -> None:
    assert end_of_rotated(KEY, 60, NOW) == NOW + timedelta(seconds=60)
    assert end_of_rotated(KEY, MAX_OVERLAP_S, NOW) == KEY.expires_at
    with pytest.raises(Refusal, match="invalid_value"):
        end_of_rotated(KEY, MAX_OVERLAP_S + 1, NOW)
    with pytest.raises(Refusal, match="already_exists"):
        end_of_rotated(replace(KEY, replaced_by="apk_2"), 60, NOW)
    with pytest.raises(Refusal, match="not_found"):
        end_of_rotated(KEY, 60, NOW + timedelta(days=10))


def test_a_successor_lives_as_long_as_the_key_before_it_and_no_longer_than_keys_may_by_now() -> None:
    assert end_of_successor(KEY, NOW + timedelta(days=3), timedelta(days=10)) == NOW + timedelta(days=13)
    with pytest.raises(Refusal, match="invalid_value"):
        end_of_successor(KEY, NOW + timedelta(days=3), timedelta(days=9))
    of_account = replace(KEY, owner="sva_1")
    assert end_of_successor(of_account, NOW, timedelta(days=9)) == NOW + timedelta(days=10)
    assert end_of_successor(replace(of_account, expires_at=None), NOW, timedelta(days=9)) is None
