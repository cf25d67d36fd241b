"""Orgs as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oa_base.refusal import Refusal
from services.control.members.domain import Member
from services.control.orgs.domain import Org


@dataclass(frozen=True, slots=True)
class InstallationOrg:
    """An org with counts of what belongs to it. `gone_at`: since when the org is gone, and its name with it."""

    org: Org
    gone_at: datetime | None
    members: int
    service_accounts: int


def require_restorable(org: InstallationOrg) -> None:
    """Raises Refusal `org_deleted` for an org that is gone, or that went with the account of its last member."""
    if org.gone_at is not None:
        message = "the org is gone for good, and its members with it; have somebody make a new one"
        raise Refusal("org_deleted", message, field="org_id")
    if not org.members:
        message = "the org went with the account of its last member; have somebody make a new one"
        raise Refusal("org_deleted", message, field="org_id")


def require_heir(member: Member | None, owners: int) -> Member:
    """Return the member whom an operator may make the owner of an org with this number of owners who can act.

    Raises Refusal `already_exists` if there are any, because they decide; `not_found` for somebody who is no member;
    `invalid_value` for one who is blocked.
    """
    if owners:
        message = "the org has an owner who can act, and who decides about owners; block that person first if need be"
        raise Refusal("already_exists", message, field="org_id")
    if member is None:
        message = "the person is no member of the org; list its members with oa admin org show"
        raise Refusal("not_found", message, field="person")
    if member.blocked:
        message = "the person is blocked; remove the block, or name another member"
        raise Refusal("invalid_value", message, field="person")
    return member
