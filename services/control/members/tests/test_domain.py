"""Who may change what of an org's members: tables, and a property over any sequence of changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from services.control.members.domain import loses, require_leave, require_may_give, require_removal, require_role_change
from services.control.policy.domain import Role

PEOPLE = (0, 1, 2, 3)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["role", "remove", "leave"]),
        st.sampled_from(PEOPLE),
        st.sampled_from(PEOPLE),
        st.sampled_from(Role),
    )
)


@given(CHANGES)
def test_no_sequence_of_changes_leaves_an_org_without_an_owner(changes: list[tuple[str, int, int, Role]]) -> None:
    roles = dict(zip(PEOPLE, (Role.OWNER, Role.OWNER, Role.ADMIN, Role.MEMBER), strict=True))
    for kind, actor, target, role in changes:
        if actor not in roles or target not in roles:
            continue
        ending = actor if kind == "leave" else target
        others = [role for person, role in roles.items() if person != ending].count(Role.OWNER)
        with suppress(Refusal):
            if kind == "role":
                require_role_change(roles[actor], roles[target], role, others, "org_1")
                roles[target] = role
            elif kind == "remove":
                require_removal(roles[actor], roles[target], others, "org_1")
                del roles[target]
            else:
                require_leave(roles[actor], others)
                del roles[actor]
        assert Role.OWNER in roles.values()


def _reason(check: Callable[[], None]) -> str:
    try:
        check()
    except Refusal as refusal:
        return refusal.reason
    return ""


@pytest.mark.parametrize(("actor", "before", "after"), list(product(Role, Role, Role)))
def test_only_owners_make_and_unmake_owners(actor: Role, before: Role, after: Role) -> None:
    allowed = actor is Role.OWNER or Role.OWNER not in (before, after)
    reason = _reason(lambda: require_role_change(actor, before, after, 1, "org_1"))
    assert reason == ("" if allowed else "org_scope_denied")


@pytest.mark.parametrize("actor", Role)
def test_only_owners_remove_and_invite_owners(actor: Role) -> None:
    expected = "" if actor is Role.OWNER else "org_scope_denied"
    assert _reason(lambda: require_removal(actor, Role.OWNER, 1, "org_1")) == expected
    assert _reason(lambda: require_may_give(actor, Role.OWNER, "org_1")) == expected


def test_the_only_owner_can_neither_leave_nor_be_anything_else() -> None:
    assert _reason(lambda: require_leave(Role.OWNER, 0)) == "last_owner"
    assert _reason(lambda: require_role_change(Role.OWNER, Role.OWNER, Role.ADMIN, 0, "org_1")) == "last_owner"
    assert _reason(lambda: require_removal(Role.OWNER, Role.OWNER, 0, "org_1")) == "last_owner"
    require_role_change(Role.OWNER, Role.OWNER, Role.OWNER, 0, "org_1")
    require_leave(Role.ADMIN, 0)


@pytest.mark.parametrize(("before", "after"), list(product(Role, Role)))
def test_every_step_down_loses_something_and_no_step_up_does(before: Role, after: Role) -> None:
    order = list(Role)
    assert loses(before, after) == (order.index(after) > order.index(before))
