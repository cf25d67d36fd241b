"""Which changes of an org's members are allowed, and to whom. An org always has an owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oa_base.refusal import Refusal
from services.control.policy.domain import Denied, Role, Scope, role_scopes


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an org. `blocked`: operators keep the person out."""

    user_id: str
    email: str
    role: Role
    joined_at: datetime
    blocked: bool = False


def may_give(actor: Role, role: Role) -> bool:
    """Whether a member with the role `actor`, who may change members, may give and take away `role`."""
    return actor is Role.OWNER or role is not Role.OWNER


def require_may_give(actor: Role, role: Role, org_id: str) -> None:
    """Raises Refusal `org_scope_denied` for a role that only owners of the org may give and take away."""
    if not may_give(actor, role):
        raise Denied("org_scope_denied", "only an owner makes and unmakes owners; ask one", org_id)


def require_role_change(actor: Role, before: Role, after: Role, others: int, org_id: str) -> None:
    """Check that a member with the role `actor` may change `before` to `after` in an org with this number of other
    owners who can act.

    Raises Refusal `org_scope_denied`, `last_owner`.
    """
    for role in (before, after):
        require_may_give(actor, role, org_id)
    if after is not Role.OWNER:
        _require_owner_left(before, others)


def require_removal(actor: Role, removed: Role, others: int, org_id: str) -> None:
    """Check that `actor` may remove a member with role `removed`. Raises Refusal `org_scope_denied`, `last_owner`."""
    require_may_give(actor, removed, org_id)
    _require_owner_left(removed, others)


def require_leave(leaving: Role, others: int, *, successor: Member | None = None) -> None:
    """Check that a member may leave, or hand the org over to another one. Raises Refusal `last_owner`."""
    _require_owner_left(leaving, others + (successor is not None and not successor.blocked))


def loses(before: Role, after: Role) -> bool:
    """Whether `after` lacks a scope that `before` has."""
    return not role_scopes(before) <= role_scopes(after)


def has_place(role: Role) -> bool:
    """Whether a member with the role may start runs."""
    return Scope.RUNS_WRITE in role_scopes(role)


def _require_owner_left(ending: Role, others: int) -> None:
    if ending is Role.OWNER and not others:
        message = (
            "the org would be without an owner who can act: somebody whom operators block does not count; "
            "make another member an owner first, or delete the org"
        )
        raise Refusal("last_owner", message)
