"""Orgs as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oa_base.refusal import Refusal
from services.control.orgs.domain import Org


@dataclass(frozen=True, slots=True)
class InstallationOrg:
    """An org with counts of what belongs to it. `gone_at`: since when the org is gone, and its name with it."""

    org: Org
    gone_at: datetime | None
    members: int
    service_accounts: int


def require_restorable(org: InstallationOrg) -> None:
    """Raises Refusal `org_deleted` for an org that is gone."""
    if org.gone_at is not None:
        message = "the org is gone for good, and its members with it; have somebody make a new one"
        raise Refusal("org_deleted", message, field="org_id")
