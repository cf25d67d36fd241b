"""The shares of the limits that a request for a code takes, so that nobody can use up what is kept for somebody else.

Anybody can ask for codes for any address. The address's limit keeps its mailbox from being flooded, so it is divided:
each network gets only a small part of it, and a device on which the account has been used has a limit of its own.
A device id is as good as a secret: only the device and the server know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.rate import Rate
from services.control.sign_in.limits import SignInLimits


@dataclass(frozen=True, slots=True)
class Share:
    """One unit to take from a bucket."""

    bucket: str
    rate: Rate


def address_bucket(email: str) -> str:
    """The bucket for an address's codes that devices unknown to it ask for."""
    return f"start:address:{email}"


def _device_bucket(email: str, device_id: str) -> str:
    return f"start:device:{device_id}:{email}"


def _network_bucket(email: str, network: str) -> str:
    return f"start:address-net:{network}:{email}"


def address_buckets(email: str, device_id: str, network: str) -> Sequence[str]:
    """The buckets that a sign-in gives back, in the order of locks."""
    return address_bucket(email), _network_bucket(email, network), _device_bucket(email, device_id)


def network_share(limits: SignInLimits, network: str) -> Share:
    """The share that a sign-in takes from its network when it begins, unless a known device asks for a code."""
    return Share(f"start:net:{network}", limits.per_network)


def shares_of(limits: SignInLimits, email: str, device_id: str, network: str, *, known_device: bool) -> Sequence[Share]:
    """The shares that a code takes, in the order of locks."""
    if known_device:
        return (Share(_device_bucket(email, device_id), limits.per_known_device),)
    return (
        network_share(limits, network),
        Share(address_bucket(email), limits.per_address),
        Share(_network_bucket(email, network), limits.per_address_and_network),
    )


def guess_shares(limits: SignInLimits, network: str) -> Sequence[Share]:
    """The shares that a guess takes if it is not for a challenge of the device that brings it."""
    return (Share(f"guess:net:{network}", limits.guesses_per_network),)
