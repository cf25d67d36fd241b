"""What a request for a code takes from the limits, so that nobody can use up what is kept for somebody else.

Anybody can ask for codes for any address. So the address's limit, which keeps its mailbox from being flooded, is shared
out: each network gets only a small part of it, and a device on which the account has been used has one of its own.
A device id is as good as a secret: nobody but the device and the server knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.rate import Rate
from services.control.sign_in.limits import SignInLimits


@dataclass(frozen=True, slots=True)
class Share:
    """One to take from a bucket."""

    bucket: str
    rate: Rate


def address_bucket(email: str) -> str:
    """The codes for an address that devices asked for that it does not know."""
    return f"start:address:{email}"


def _device_bucket(email: str, device_id: str) -> str:
    return f"start:device:{device_id}:{email}"


def _network_bucket(email: str, network: str) -> str:
    return f"start:address-net:{network}:{email}"


def address_buckets(email: str, device_id: str, network: str) -> Sequence[str]:
    """What a sign-in gives back, in the order of locks."""
    return address_bucket(email), _network_bucket(email, network), _device_bucket(email, device_id)


def network_share(limits: SignInLimits, network: str) -> Share:
    """What any sign-in that begins takes from its network."""
    return Share(f"start:net:{network}", limits.per_network)


def shares_of(limits: SignInLimits, email: str, device_id: str, network: str, *, known_device: bool) -> Sequence[Share]:
    """What a code takes, in the order of locks."""
    if known_device:
        return (Share(_device_bucket(email, device_id), limits.per_known_device),)
    return (
        network_share(limits, network),
        Share(address_bucket(email), limits.per_address),
        Share(_network_bucket(email, network), limits.per_address_and_network),
    )


def guess_shares(limits: SignInLimits, network: str) -> Sequence[Share]:
    """What a guess takes that is for no challenge of the device that brings it."""
    return (Share(f"guess:net:{network}", limits.guesses_per_network),)
