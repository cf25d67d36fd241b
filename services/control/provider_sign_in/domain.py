"""Sign-ins at an identity provider: their contents, when one may be finished, and whom it lets in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.control.provider_sign_in.limits import MAX_SUBJECT_CHARS, SIGN_IN_TTL
from services.control.sign_in.domain.sign_up import Knock, SignUpRule, is_welcome

_LOOPBACK = re.compile(r"http://127\.0\.0\.1:([1-9][0-9]{0,4})/callback")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class ProviderRule:
    """`redirects`: exact redirect URLs; `loopback`: also those of a program on the person's machine (RFC 8252, 7.3).
    `link_domains`: domains for whose addresses a provider may give access to an existing account. `codes_too`: whether
    people can also sign in with a code by mail."""

    redirects: frozenset[str] = frozenset()
    loopback: bool = True
    link_domains: frozenset[str] = frozenset()
    codes_too: bool = True


def may_redirect(rule: ProviderRule, redirect_uri: str) -> bool:
    """Whether a provider may be told to redirect a browser to this URL."""
    loopback = _LOOPBACK.fullmatch(redirect_uri)
    return redirect_uri in rule.redirects or bool(rule.loopback and loopback and int(loopback[1]) <= _MAX_PORT)


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that a device has begun. Its secrets aren't stored: they are derived from its id and a key."""

    sign_in_id: str
    provider: str
    device_id: str
    redirect_uri: str
    created_at: datetime
    used_at: datetime | None = None

    @property
    def expires_at(self) -> datetime:
        """The time from which the sign-in can't be finished."""
        return self.created_at + SIGN_IN_TTL


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sign-in sends to a provider, and presents again with the code. `repr` shows no secret."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return f"Asked({self.redirect_uri})"


def asked(key: bytes, begun: Begun) -> Asked:
    """State, nonce and PKCE verifier of a sign-in: unpredictable without the key, and the same on each replica."""

    def secret(use: str) -> str:
        made = hmac.digest(key, f"provider-{use}:{begun.sign_in_id}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(made).decode().rstrip("=")

    return Asked(begun.redirect_uri, secret("state"), secret("nonce"), secret("verifier"))


def may_finish(begun: Begun, device_id: str, state: str, expected_state: str, now: datetime) -> bool:
    """Whether a provider's answer is for this sign-in, from the device that began it, in time, and the first one."""
    return (
        begun.used_at is None
        and now < begun.expires_at
        and hmac.compare_digest(begun.device_id.encode(), device_id.encode())
        and hmac.compare_digest(expected_state.encode(), state.encode())
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """The person for whom a provider vouches. `email` is as the provider writes it; empty when it gives none."""

    issuer: str
    subject: str
    email: str
    email_verified: bool

    @property
    def is_storable(self) -> bool:
        """Whether the subject is valid by the specification, and can be stored."""
        return 0 < len(self.subject) <= MAX_SUBJECT_CHARS and self.subject.isascii() and self.subject.isprintable()

    @property
    def bucket(self) -> str:
        """The name of the lock that serializes the sign-ins of one identity."""
        # A subject that can't be stored has a lock, too: JSON can hold half a character.
        name = f"{self.issuer} {self.subject}".encode(errors="surrogatepass")
        return f"identity:{hashlib.sha256(name).hexdigest()}"


class Refused(StrEnum):
    """Why a person for whom a provider vouches is not let in; the reason in the audit row."""

    NO_SUBJECT = "no_subject"
    NO_ADDRESS = "no_address"
    NOT_VERIFIED = "not_verified"
    NOT_WELCOME = "not_welcome"
    BLOCKED = "blocked"
    NOT_LINKED = "not_linked"


def first_refused(sign_up: SignUpRule, rule: ProviderRule, knock: Knock) -> Refused | None:
    """Return why an identity gets no account on its first sign-in with a verified address; None if it gets one.

    A person who is known by the address has signed in with a code. The provider gives access to that account only if
    the installation trusts it for the domain; otherwise, whoever controls a provider would control all accounts.
    """
    if knock.blocked:
        return Refused.BLOCKED
    if knock.known:
        return None if knock.email.rpartition("@")[2] in rule.link_domains else Refused.NOT_LINKED
    return None if is_welcome(sign_up, knock) else Refused.NOT_WELCOME
