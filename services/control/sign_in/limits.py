"""Limits of sign-in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from oa_base.rate import Rate

MAX_SMTP_DELIVERIES = 8
"""Maximum number of e-mails on their way to the relay at a time; each takes a thread."""
CHALLENGES_KEPT_FOR = timedelta(days=1)
"""How long a challenge is kept; it is over long before."""


@dataclass(frozen=True)
class SignInLimits:
    """How often codes may be asked for and tried. Per address: a sign-in gives all of it back."""

    per_address: Rate
    per_network: Rate
    guesses_per_network: Rate
