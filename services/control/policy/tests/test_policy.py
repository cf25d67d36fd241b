"""The one decision: who may do what. Checked against a second, plainer statement of the rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from services.control.policy.domain import (
    ROLE_SCOPES,
    SERVICE_ACCOUNT_SCOPES,
    WORKER_SCOPES,
    AnyPrincipal,
    OrgOwned,
    Public,
    Resource,
    Role,
    Scope,
    Scoped,
    StandingPrincipal,
    UserOwned,
    authorize,
)
from services.control.policy.tests.principals import (
    ME,
    MY_ORG,
    OTHER,
    OTHER_ORG,
    principals,
)

resources: st.SearchStrategy[Resource | None] = st.sampled_from(
    [None, UserOwned(ME), UserOwned(OTHER), OrgOwned(MY_ORG), OrgOwned(OTHER_ORG)]
)


@given(principals, st.sampled_from(list(Scope)), resources)
def test_a_scoped_thing_needs_token_and_role_and_owner(
    principal: StandingPrincipal, scope: Scope, resource: Resource | None
) -> None:
    mine = resource in (None, UserOwned(ME), OrgOwned(MY_ORG))
    allowed = scope in principal.scopes and scope in principal.standing and mine
    denied = authorize(principal, Scoped(scope), resource)
    assert (denied is None) == allowed
    if denied:
        Refusal(denied.reason, denied.message)  # in the catalogue


@given(principals)
def test_public_is_for_everybody_and_the_rest_for_nobody_unknown(principal: StandingPrincipal) -> None:
    assert authorize(None, Public()) is None
    assert authorize(principal, AnyPrincipal()) is None
    for access in (AnyPrincipal(), Scoped(Scope.RUNS_READ)):
        denied = authorize(None, access)
        assert denied is not None
        assert denied.reason == "missing_authorization"


def test_reasons_come_in_order_token_role_owner() -> None:
    def reason(scopes: frozenset[Scope], standing: frozenset[Scope]) -> str | None:
        principal = StandingPrincipal(PrincipalKind.USER, ME, MY_ORG, scopes, standing=standing)
        denied = authorize(principal, Scoped(Scope.RUNS_READ), UserOwned(OTHER))
        return denied.reason if denied else None

    has = frozenset({Scope.RUNS_READ})
    assert reason(frozenset(), frozenset()) == "missing_scope"
    assert reason(has, frozenset()) == "org_scope_denied"
    assert reason(has, has) == "owner_mismatch"


@pytest.mark.parametrize("scope", sorted(ROLE_SCOPES[Role.OWNER]))
def test_whoever_lacks_a_right_is_sent_to_somebody_who_has_it(scope: Scope) -> None:
    principal = StandingPrincipal(PrincipalKind.USER, ME, MY_ORG, frozenset({scope}))
    denied = authorize(principal, Scoped(scope))
    assert denied is not None
    assert ("ask an admin" in denied.message) is (scope in ROLE_SCOPES[Role.ADMIN])
    assert ("ask an owner" in denied.message) is (scope not in ROLE_SCOPES[Role.ADMIN])


def test_roles_grow_from_viewer_to_owner_and_none_may_attach_workers() -> None:
    order = [Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER]
    for smaller, larger in itertools.pairwise(order):
        assert ROLE_SCOPES[smaller] <= ROLE_SCOPES[larger]
    everyone = frozenset().union(*ROLE_SCOPES.values(), SERVICE_ACCOUNT_SCOPES)
    assert WORKER_SCOPES.isdisjoint(everyone)
    assert Scope.SERVICE_ACCOUNTS_WRITE not in SERVICE_ACCOUNT_SCOPES, "a key must not make keys"
