"""Which orgs end with an account, which the person leaves, and which prevent the deletion."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from services.control.accounts.domain import Place, deletion_of, require_confirmed, require_deletable
from services.control.blocks.domain import Subject
from services.control.orgs.domain import Org
from services.control.policy.domain import Role

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = Subject("usr_1", "ada@example.org", "org_own", None, 0, 0)


def place(org_id: str, role: Role, others: int, owners: int, *, personal: bool = False, deleted: bool = False) -> Place:
    return Place(Org(org_id, "n", personal, NOW, NOW if deleted else None), role, others, owners)


PLACES = st.builds(
    place,
    org_id=st.uuids().map(str),
    role=st.sampled_from(Role),
    others=st.integers(0, 3),
    owners=st.integers(0, 3),
    deleted=st.booleans(),
).filter(lambda one: one.other_owners <= one.others)


@pytest.mark.parametrize(
    ("found", "becomes"),
    [
        (place("o", Role.OWNER, 0, 0, personal=True), "ending"),
        (place("o", Role.OWNER, 0, 0), "ending"),
        (place("o", Role.OWNER, 2, 0), "blocking"),
        (place("o", Role.OWNER, 2, 1), "left"),
        (place("o", Role.ADMIN, 2, 1), "left"),
        (place("o", Role.MEMBER, 2, 0), "left"),  # its owners are blocked: nothing changes for it
        (place("o", Role.OWNER, 2, 0, deleted=True), "left"),
        (place("o", Role.OWNER, 0, 0, deleted=True), "ending"),
    ],
)
def test_what_becomes_of_an_org(found: Place, becomes: str) -> None:
    deletion = deletion_of(ACCOUNT, [found])
    assert {name: len(getattr(deletion, name)) for name in ("ending", "left", "blocking")} == {
        "ending": 0,
        "left": 0,
        "blocking": 0,
        becomes: 1,
    }


@given(st.lists(PLACES, unique_by=lambda one: one.org.org_id))
def test_no_org_that_goes_on_is_left_without_an_owner(places: list[Place]) -> None:
    deletion = deletion_of(ACCOUNT, places)
    groups = [deletion.ending, deletion.left, deletion.blocking]
    assert sorted(org.org_id for group in groups for org in group) == sorted(one.org.org_id for one in places)
    ownerless = {
        one.org.org_id
        for one in places
        if one.others and one.org.delete_at is None and one.role is Role.OWNER and not one.other_owners
    }
    assert {org.org_id for org in deletion.blocking} == ownerless
    if not ownerless:
        require_deletable(deletion)
        return
    with pytest.raises(Refusal) as refused:
        require_deletable(deletion)
    assert refused.value.reason == "last_owner"
    assert set(refused.value.metadata["org_ids"].split(",")) == ownerless


def test_only_the_own_id_confirms() -> None:
    require_confirmed("usr_1", "usr_1")
    with pytest.raises(Refusal) as refused:
        require_confirmed("usr_1", "usr_2")
    assert (refused.value.reason, refused.value.field) == ("not_found", "user_id")
