"""People and orgs as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from services.control.policy.domain import Role


@dataclass(frozen=True, slots=True)
class User:
    """A person. `org_id` is the person's own org, made at the first sign-in."""

    user_id: str
    email: str
    org_id: str


@dataclass(frozen=True, slots=True)
class Membership:
    """An org as one of its members has it."""

    org_id: str
    name: str
    personal: bool
    role: Role


def personal_org_name(email: str) -> str:
    """Name of a person's own org, until it is given a better one."""
    return email.partition("@")[0]
