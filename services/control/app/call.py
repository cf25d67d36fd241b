"""One call, however it came in."""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.refusal import Refusal
from services.control.domain.audit import Origin
from services.control.domain.principal import StandingPrincipal


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls (None on public methods) and from where."""

    principal: StandingPrincipal | None
    origin: Origin

    @property
    def caller(self) -> StandingPrincipal:
        """The principal of a method that isn't public."""
        if self.principal is None:
            raise Refusal("missing_authorization", "This call needs an access token.")
        return self.principal
