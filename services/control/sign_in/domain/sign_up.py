"""Who may sign in: every known person unless blocked, and of the others those who may sign up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SignUp(StrEnum):
    """Who may get an account by signing in for the first time."""

    OPEN = "open"
    DOMAINS = "domains"
    INVITATION = "invitation"


@dataclass(frozen=True, slots=True)
class SignUpRule:
    """`domains` are complete and in the canonical form of addresses; a subdomain is a different domain."""

    mode: SignUp = SignUp.OPEN
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Knock:
    """A request to sign in. `email` is canonical; `invited` says whether an invitation is open for it."""

    email: str
    known: bool
    blocked: bool
    invited: bool


def is_welcome(rule: SignUpRule, knock: Knock) -> bool:
    """Whether a code may sign in the person who gets the mail of this address."""
    if knock.known:
        return not knock.blocked
    match rule.mode:
        case SignUp.OPEN:
            return True
        case SignUp.DOMAINS:
            return knock.email.rpartition("@")[2] in rule.domains or knock.invited
        case SignUp.INVITATION:
            return knock.invited
