"""People and orgs as plain values, and what an org's state allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from oa_base.refusal import Refusal
from services.control.policy.domain import Role, StandingPrincipal, role_scopes


@dataclass(frozen=True, slots=True)
class User:
    """A person. `org_id` is the person's own org, made at the first sign-in."""

    user_id: str
    email: str
    org_id: str


@dataclass(frozen=True, slots=True)
class Org:
    """An org. `personal`: it is a person's own. `delete_at`: it was deleted, and will be gone at that time."""

    org_id: str
    name: str
    personal: bool
    created_at: datetime
    delete_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """An org, and the role that one of its members has in it."""

    org: Org
    role: Role


_ROLE_PREFIX = "ORG_ROLE_"


def role_name(role: Role) -> str:
    """Name of the role in the contract's enum."""
    return _ROLE_PREFIX + role.value.upper()


def role_named(name: str) -> Role:
    """The role with this name in the contract's enum."""
    return Role(name.removeprefix(_ROLE_PREFIX).lower())


def require_name(name: str) -> None:
    """Check the name of an org, account or key, as far as the contract does not. Raises Refusal `missing_field`."""
    if not name.strip():
        raise Refusal("missing_field", "the name is blank; give one that people can see", field="name")


def personal_org_name(email: str) -> str:
    """Name of a person's own org, until it is given a better one."""
    return email.partition("@")[0]


def acting_as(principal: StandingPrincipal, membership: Membership) -> StandingPrincipal:
    """Return the caller with its standing in one of its orgs, whatever org its token acts in. The token's scopes still
    limit what the caller may do."""
    return replace(principal, org_id=membership.org.org_id, standing=role_scopes(membership.role))


def org_deleted(field: str = "") -> Refusal:
    """The refusal for a deleted org: the one that the caller acts in, or the one that a field of the request names."""
    return Refusal("org_deleted", "the org was deleted; have an owner restore it", field=field)


def require_open(org: Org) -> None:
    """Raises Refusal `org_deleted` for a deleted org."""
    if org.delete_at is not None:
        raise org_deleted("org_id")


def require_shared(org: Org) -> None:
    """Raises Refusal for an org whose members can't change: `personal_org`, `org_deleted`."""
    if org.personal:
        raise Refusal(
            "personal_org", "this is a person's own org, for nobody else; make an org to share", field="org_id"
        )
    require_open(org)


def deleted(org: Org, now: datetime, grace: timedelta) -> Org:
    """Return the org as deleted. An org that was already deleted stays as it is. Raises Refusal `personal_org`."""
    if org.personal:
        raise Refusal("personal_org", "a person's own org can't be deleted; delete another one", field="org_id")
    return org if org.delete_at else replace(org, delete_at=now + grace)


def restored(org: Org) -> Org:
    """The org, open again."""
    return replace(org, delete_at=None)


def no_such_org() -> Refusal:
    """The refusal for an org that isn't the caller's, whether it exists or not."""
    return Refusal("not_found", "there is no such org of yours; list your orgs", field="org_id")
