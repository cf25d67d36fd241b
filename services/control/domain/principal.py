"""Who a call is made for, and what that one may do now."""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.identity import Principal
from services.control.domain.scopes import Scopes


@dataclass(frozen=True, slots=True)
class StandingPrincipal(Principal):
    """A principal with what it may do right now.

    `scopes` is what its token carries, `standing` what its role (or its kind of account) gives it in `org_id` now.
    Both are needed to act: a token outlives a change of role, and a role is more than some tokens may use.
    """

    scopes: Scopes = frozenset()
    standing: Scopes = frozenset()

    @property
    def effective_scopes(self) -> Scopes:
        """What it may do: what the token carries, as far as its standing still gives it."""
        return self.scopes & self.standing
