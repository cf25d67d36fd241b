"""Limits of sign-in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from oa_base.rate import Rate

CHALLENGES_KEPT_FOR = timedelta(days=1)
"""How long a challenge is kept. It is over long before that."""


@dataclass(frozen=True)
class SignInLimits:
    """How often codes may be requested and tried. All limits except those of a network are for one address, and a
    sign-in gives them back. `per_address` bounds what strangers can send to a mailbox; `per_known_device` is apart."""

    per_address: Rate
    per_address_and_network: Rate
    per_known_device: Rate
    per_network: Rate
    guesses_per_network: Rate
