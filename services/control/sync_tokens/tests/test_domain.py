"""What a sync token may carry, and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_khala.grants import AllOf
from oa_khala.topics import (
    ORG_RUNS,
    ORG_WORKERS,
    RUN_EVENTS,
    TOPIC_CLASSES,
    USER_NOTIFICATIONS,
    USER_RUNS,
    WORKER_LIFECYCLE,
    Topic,
    TopicClass,
)
from services.control.policy.domain import Role, Scope, StandingPrincipal, role_scopes
from services.control.policy.tests.principals import (
    ME,
    MY_ORG,
    NOW,
    OTHER,
    OTHER_ORG,
    RUN,
    principals,
)
from services.control.sync_tokens import door
from services.control.sync_tokens.domain import (
    WIDE_SURFACES,
    Grant,
    Surface,
    decide,
    granted_topics,
    needed_scopes,
    still_granted,
    sufficient_roles,
    surface_of,
    token_expiry,
    token_ttl,
)
from services.control.sync_tokens.door import contract_surfaces
from services.control.tests.harness import new_id


@given(principals, st.sampled_from(TOPIC_CLASSES), st.booleans())
def test_a_topic_is_granted_to_members_and_owners_with_the_scope_only(
    principal: StandingPrincipal, topic_class: object, own: bool
) -> None:
    subjects = {
        "usr_": ME if own else OTHER,
        "org_": MY_ORG if own else OTHER_ORG,
        "run_": RUN,
        "wrk_": "wrk_" + ME[4:],
    }
    kind = next(found for found in TOPIC_CLASSES if found is topic_class)
    topic = Topic(kind, subjects[kind.id_prefix])
    reason = decide(principal, topic, Surface.CLI, MY_ORG if own else OTHER_ORG)
    has_scope = kind.required_scope in principal.effective_scopes
    # Whose a worker is, runtime says when it is subscribed.
    assert (reason is None) == (has_scope and (own or kind is WORKER_LIFECYCLE))


@given(
    principals,
    st.sampled_from([(RUN_EVENTS, ME), (RUN_EVENTS, MY_ORG), (WORKER_LIFECYCLE, MY_ORG)]),
    st.booleans(),
    st.sampled_from(Surface),
)
def test_all_topics_of_an_owner_are_granted_to_the_owner_with_the_scope_on_surfaces_of_our_own(
    principal: StandingPrincipal, kind_and_owner: tuple[TopicClass, str], own: bool, surface: Surface
) -> None:
    topic_class, mine = kind_and_owner
    others = OTHER_ORG if mine == MY_ORG else OTHER
    reason = decide(principal, AllOf(topic_class, mine if own else others), surface, None)
    may_read = own and topic_class.required_scope in principal.effective_scopes
    assert (reason is None) == (may_read and surface in WIDE_SURFACES)
    assert (reason == "surface_policy_denied") == (may_read and surface not in WIDE_SURFACES)


@pytest.mark.parametrize("kind", TOPIC_CLASSES, ids=lambda kind: kind.name)
def test_a_token_for_somebody_elses_page_opens_nothing_but_events_of_runs(kind: TopicClass) -> None:
    everything = frozenset(Scope)
    principal = StandingPrincipal(PrincipalKind.USER, ME, MY_ORG, everything, standing=everything)
    subjects = {"usr_": ME, "org_": MY_ORG, "run_": RUN, "wrk_": "wrk_" + ME[4:]}
    topic = Topic(kind, subjects[kind.id_prefix])
    assert decide(principal, topic, Surface.WEB, MY_ORG) is None
    assert decide(principal, topic, Surface.THIRD_PARTY, MY_ORG) == (
        None if kind is RUN_EVENTS else "surface_policy_denied"
    )


def test_a_run_that_runtime_does_not_know_is_forbidden() -> None:
    everything = frozenset(Scope)
    principal = StandingPrincipal(PrincipalKind.USER, ME, MY_ORG, everything, standing=everything)
    run_events = next(found for found in TOPIC_CLASSES if found.id_prefix == "run_")
    assert decide(principal, Topic(run_events, RUN), Surface.CLI, None) == "forbidden_topic"


@pytest.mark.parametrize("text", ["embed", "CLI", "cli ", "unstated", "third-party"])
def test_a_surface_that_is_not_in_the_registry_is_refused_and_not_echoed(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        surface_of(text)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "surface")
    assert refused.value.message == (
        "a token is used in one of these: cli, sdk, web, desktop, mobile, worker, third_party; "
        "leave it out for a token that opens what it names"
    )


def test_the_registry_is_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = contract_surfaces()
    assert texts == set(Surface)
    assert [surface_of(text) for text in sorted(texts)] == sorted(Surface)
    for other in (texts - {"mobile"}, texts | {"watch"}):
        monkeypatch.setattr(door, "contract_surfaces", lambda other=other: other)
        with pytest.raises(ValueError, match="surfaces"):
            door.SyncTokenApi(sync_tokens=None, khala_url="")  # type: ignore[arg-type]  # never asked


@given(principals, st.lists(st.sampled_from([USER_RUNS, ORG_RUNS, ORG_WORKERS, USER_NOTIFICATIONS]), min_size=1))
def test_a_role_suffices_if_it_still_gives_all_that_was_granted(
    principal: StandingPrincipal, asked: list[TopicClass]
) -> None:
    topics = [Topic(one, ME if one.id_prefix == "usr_" else MY_ORG) for one in asked]
    grants = [Grant(str(topic), decide(principal, topic, Surface.CLI, None)) for topic in topics]
    sufficient = sufficient_roles(grants)
    for role in Role:
        assert (role in sufficient) == (still_granted(grants, role_scopes(role)) == tuple(grants))


@pytest.mark.parametrize(("asked", "given_s"), [(0, 300), (60, 60), (900, 900)])
def test_a_lifetime_within_the_bounds_is_given(asked: int, given_s: int) -> None:
    assert token_ttl(asked) == timedelta(seconds=given_s)


@pytest.mark.parametrize("asked", [1, 59, 901, 2**32 - 1])
def test_a_lifetime_outside_the_bounds_is_refused_and_not_clamped(asked: int) -> None:
    with pytest.raises(Refusal) as refused:
        token_ttl(asked)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "ttl_seconds")


def test_a_sync_token_ends_with_the_session_at_the_latest() -> None:
    ttl = timedelta(seconds=300)
    assert token_expiry(ttl, NOW, None) == NOW + ttl
    assert token_expiry(ttl, NOW, NOW + timedelta(seconds=100)) == NOW + timedelta(seconds=100)
    assert token_expiry(ttl, NOW, NOW + timedelta(days=1)) == NOW + ttl


def test_with_no_topic_granted_the_first_reason_counts() -> None:
    assert granted_topics([Grant("a", "invalid_topic"), Grant("b")]) == ("b",)
    with pytest.raises(Refusal) as refused:
        granted_topics([Grant("a", "owner_mismatch"), Grant("b", "invalid_topic")])
    assert refused.value.reason == "owner_mismatch"


def test_a_token_carries_the_scopes_that_its_topics_need() -> None:
    topics = [Topic(kind, kind.id_prefix) for kind in TOPIC_CLASSES]
    assert needed_scopes(topics) == ("notifications.read", "runs.read", "workers.read")
    assert set(needed_scopes(topics)) <= set(Scope), "every scope of a topic is in the registry"


def test_what_the_caller_may_no_longer_do_is_not_granted() -> None:
    run, mine = f"run:{new_id('run')}:events", f"user:{new_id('usr')}:notifications"
    grants = (Grant(run), Grant(mine), Grant("nonsense", "invalid_topic"))
    assert still_granted(grants, frozenset(Scope)) == grants
    reasons = [grant.reason for grant in still_granted(grants, frozenset({Scope.NOTIFICATIONS_READ}))]
    assert reasons == ["org_scope_denied", None, "invalid_topic"]
