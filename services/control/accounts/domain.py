"""What the deletion of an account ends, and when it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal
from services.control.blocks.domain import Subject
from services.control.orgs.domain import Org
from services.control.policy.domain import Role


@dataclass(frozen=True, slots=True)
class Place:
    """A membership of the person. `others` counts the other members, `other_owners` the other owners who can act."""

    org: Org
    role: Role
    others: int
    other_owners: int


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the deletion of an account does: orgs that are deleted with it, orgs that the person leaves, and orgs that
    prevent it, because they would be left without an owner who can act."""

    account: Subject
    ending: Sequence[Org] = ()
    left: Sequence[Org] = ()
    blocking: Sequence[Org] = ()


def deletion_of(account: Subject, places: Sequence[Place]) -> Deletion:
    """Decide about each org of the person. An org without other members ends; a deleted org goes its way, and operators
    can restore it and give it another owner."""
    ending, left, blocking = [], [], []
    for place in places:
        if place.org.personal or not place.others:
            ending.append(place.org)
        elif place.org.delete_at is None and place.role is Role.OWNER and not place.other_owners:
            blocking.append(place.org)
        else:
            left.append(place.org)
    return Deletion(account, tuple(ending), tuple(left), tuple(blocking))


def require_deletable(deletion: Deletion) -> None:
    """Raises Refusal `last_owner` with `org_ids`, the orgs that prevent the deletion."""
    if not deletion.blocking:
        return
    org_ids = ",".join(org.org_id for org in deletion.blocking)
    message = (
        f"these orgs have other members, and no other owner who can act: {org_ids}; "
        "make another member an owner of each, or delete it"
    )
    raise Refusal("last_owner", message, metadata={"org_ids": org_ids})


def require_confirmed(caller: str, confirmed: str) -> None:
    """Check that the caller means the own account. Raises Refusal `not_found`."""
    if caller != confirmed:
        message = "this is not the id of your account; confirm the deletion with the id that you are signed in with"
        raise Refusal("not_found", message, field="user_id")
