"""Who a call is made for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.control.domain.scopes import Scopes


class Kind(StrEnum):
    """Kind of a principal."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    `scopes` is what its token carries, `standing` what its role (or its kind of account) gives it in `org_id` now.
    Both are needed to act: a token outlives a change of role, and a role is more than some tokens may use.
    `session_id` and `device_id` are empty for service accounts.
    """

    kind: Kind
    subject: str
    org_id: str
    scopes: Scopes
    standing: Scopes
    session_id: str = ""
    device_id: str = ""

    @property
    def effective_scopes(self) -> Scopes:
        """What it may do: what the token carries, as far as its standing still gives it."""
        return self.scopes & self.standing
