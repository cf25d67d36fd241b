"""Issuing tokens: the one place where claims become a signed token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from oa_khala.grants import AllOf
from oa_khala.topics import Topic
from oa_platform.system.ids import new_id
from services.control.policy.domain import StandingPrincipal
from services.control.tokens.domain import (
    ACCESS_TTL,
    API_KEY_EDGE_TTL,
    PRINCIPAL_TTL,
    WORKER_TTL,
    Claims,
    access_claims,
    principal_claims,
    sync_claims,
    worker_claims,
)

LEFT_FOR_A_CALL = timedelta(seconds=40)
"""Minimum time for which a token that is used again is still valid."""
MAX_UPSTREAM_TOKENS = 10_000
"""Maximum number of tokens for calls of services that are kept for reuse."""


class TokenSigner(Protocol):
    """Signs claims with control's current key."""

    @property
    def key_id(self) -> str:
        """The id of the key that signs now."""
        ...

    def sign(self, claims: Claims) -> str:
        """The JWT."""
        ...


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, and when it expires, in whole seconds as in its `exp`."""

    token: str
    expires_at: datetime


class TokenIssuer:
    """Issues every kind of token. The caller has decided that the token may be issued."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer
        self._upstream: OrderedDict[tuple[StandingPrincipal, str, str], IssuedToken] = OrderedDict()
        """The newest tokens for calls of services, the one used last at the end. A token that another key signed is not
        used again, because that key may have been stolen."""

    def for_session(
        self, principal: StandingPrincipal, jti: str, issued_at: datetime, ttl: timedelta = ACCESS_TTL
    ) -> IssuedToken:
        """An access token of a session. The same arguments always give the same token, byte for byte."""
        return self._issued(access_claims(principal, jti, issued_at, ttl))

    def for_api_key(self, principal: StandingPrincipal, now: datetime, key_ends: datetime | None) -> IssuedToken:
        """An access token with which a program calls the edge. It does not outlive its key."""
        return self._issued(access_claims(principal, _new_jti(), now, _within(API_KEY_EDGE_TTL, now, key_ends)))

    def for_worker(self, principal: StandingPrincipal, now: datetime, key_ends: datetime | None) -> IssuedToken:
        """A token with which a worker attaches to runtime. It does not outlive its key."""
        return self._issued(worker_claims(principal, _new_jti(), now, _within(WORKER_TTL, now, key_ends)))

    def for_upstream(self, principal: StandingPrincipal, audience: str, now: datetime) -> IssuedToken:
        """A token with which control calls the service `audience` for `principal`.

        Consecutive calls get the same token, because signing it, and checking it at the service, costs more than the
        rest of a small call. It says what the principal may do right now: another standing gets another token. Its time
        is that of the standing, so that it is ended by whatever was revoked since.
        """
        name = principal, audience, self._signer.key_id
        issued = self._upstream.get(name)
        if issued is None or not issued.expires_at - PRINCIPAL_TTL <= now <= issued.expires_at - LEFT_FOR_A_CALL:
            issued = self._issued(principal_claims(principal, audience, _new_jti(), principal.stood_at or now))
            self._upstream[name] = issued
        self._upstream.move_to_end(name)
        if len(self._upstream) > MAX_UPSTREAM_TOKENS:
            self._upstream.popitem(last=False)
        return issued

    def forget_upstream(self, principal: StandingPrincipal, audience: str) -> None:
        """Make the next token for these a new one."""
        self._upstream.pop((principal, audience, self._signer.key_id), None)

    def for_topics(
        self,
        principal: StandingPrincipal,
        grants: Sequence[Topic | AllOf],
        scopes: Sequence[str],
        surface: str,
        now: datetime,
        expires_at: datetime,
    ) -> IssuedToken:
        """A sync token with `grants`, which have been decided."""
        return self._issued(sync_claims(principal, grants, scopes, surface, _new_jti(), now, expires_at))

    def _issued(self, claims: Claims) -> IssuedToken:
        return IssuedToken(self._signer.sign(claims), claims.expires_at)


def _within(ttl: timedelta, now: datetime, ends: datetime | None) -> timedelta:
    return min(ttl, ends - now) if ends else ttl


def _new_jti() -> str:
    return new_id("tok")
