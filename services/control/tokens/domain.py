"""The claims of control's tokens: the claims messages of openagents.control.v1, as the plain values of a JWT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from oa_base.clock import MS_NS, ns_of
from oa_base.identity import (
    EDGE_AUDIENCE,
    ISSUER,
    KHALA_AUDIENCE,
    RUNTIME_AUDIENCE,
    PrincipalKind,
    TokenKind,
)
from oa_base.refusal import Refusal
from oa_khala.grants import AllOf, write_claims
from oa_khala.topics import Topic
from services.control.policy.domain import WORKER_SCOPES, StandingPrincipal, known_scopes

ACCESS_TTL = timedelta(hours=1)
PRINCIPAL_TTL = timedelta(seconds=60)
API_KEY_EDGE_TTL = timedelta(hours=1)
WORKER_TTL = timedelta(hours=1)

_KIND_PREFIX = "PRINCIPAL_KIND_"


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims by the field names of their message; times in whole seconds since the epoch. `expires_at` is the time
    of `exp`."""

    kind: TokenKind
    values: Mapping[str, object]
    expires_at: datetime


def kind_name(kind: PrincipalKind) -> str:
    """Name of the kind in the contract's enum."""
    return _KIND_PREFIX + kind.value.upper()


def access_claims(principal: StandingPrincipal, jti: str, issued_at: datetime, ttl: timedelta = ACCESS_TTL) -> Claims:
    """Claims of an access token for the public edge. They depend only on the arguments, and an Ed25519 signature
    depends only on them: refreshing twice at the same counter gives the same token twice."""
    lifetime = _Lifetime(issued_at, issued_at + ttl)
    return _claims(TokenKind.ACCESS, principal.subject, EDGE_AUDIENCE, jti, lifetime, _who(principal))


def principal_claims(principal: StandingPrincipal, audience: str, jti: str, now: datetime) -> Claims:
    """Claims with which control calls the service `audience` for `principal`: only what it may do right now."""
    who = _who(principal) | {"scopes": sorted(principal.effective_scopes)}
    lifetime = _Lifetime(now, now + PRINCIPAL_TTL)
    return _claims(TokenKind.PRINCIPAL, principal.subject, audience, jti, lifetime, who)


def worker_claims(principal: StandingPrincipal, jti: str, now: datetime, ttl: timedelta = WORKER_TTL) -> Claims:
    """Claims of a worker token of a service account."""
    who = {
        "kind": kind_name(PrincipalKind.WORKER),
        "org_id": principal.org_id,
        "scopes": sorted(WORKER_SCOPES),
        "session_id": principal.session_id,
    }
    return _claims(TokenKind.WORKER, principal.subject, RUNTIME_AUDIENCE, jti, _Lifetime(now, now + ttl), who)


def sync_claims(
    principal: StandingPrincipal,
    grants: Sequence[Topic | AllOf],
    scopes: Sequence[str],
    surface: str,
    jti: str,
    now: datetime,
    expires_at: datetime,
) -> Claims:
    """Claims of a sync token with `grants`, which have been decided."""
    claimed = write_claims(grants)
    values = {
        "org_id": principal.org_id,
        "scopes": list(scopes),
        "topics": list(claimed.topics),
        "grants": [{"form": form, "ids": list(ids)} for form, ids in claimed.ids.items()],
        "session_id": principal.session_id,
        "device_id": principal.device_id,
        "surface": surface,
        "claims_version": claimed.version,
    }
    return _claims(TokenKind.SYNC, principal.subject, KHALA_AUDIENCE, jti, _Lifetime(now, expires_at), values)


def principal_of(claims: Mapping[str, object]) -> StandingPrincipal:
    """The caller in verified access claims, still without standing. Raises Refusal `invalid_token` when a claim is
    missing or has another type, which only a defect of ours or another kind of token can cause."""
    scopes = claims.get("scopes", [])
    kind = claims.get("kind")
    if not isinstance(scopes, list) or not isinstance(kind, str) or not kind.startswith(_KIND_PREFIX):
        raise _not_ours()
    texts = {name: claims.get(name, "") for name in ("sub", "org_id", "session_id", "device_id")}
    if not all(isinstance(text, str) for text in texts.values()) or not texts["sub"] or not texts["org_id"]:
        raise _not_ours()
    try:
        parsed_kind = PrincipalKind(kind.removeprefix(_KIND_PREFIX).lower())
    except ValueError:
        raise _not_ours() from None
    return StandingPrincipal(
        kind=parsed_kind,
        subject=str(texts["sub"]),
        org_id=str(texts["org_id"]),
        scopes=known_scopes(frozenset(str(scope) for scope in scopes)),
        session_id=str(texts["session_id"]),
        device_id=str(texts["device_id"]),
    )


@dataclass(frozen=True, slots=True)
class _Lifetime:
    issued_at: datetime
    expires_at: datetime


def _claims(
    kind: TokenKind, subject: str, audience: str, jti: str, lifetime: _Lifetime, rest: Mapping[str, object]
) -> Claims:
    issued, issued_ms = divmod(ns_of(lifetime.issued_at) // MS_NS, 1000)
    registered = {
        "iss": ISSUER,
        "sub": subject,
        "aud": audience,
        "iat": issued,
        "nbf": issued,
        "exp": int(lifetime.expires_at.timestamp()),
        "jti": jti,
        "iat_ms": issued_ms,
    }
    return Claims(kind, registered | dict(rest), lifetime.expires_at.replace(microsecond=0))


def _who(principal: StandingPrincipal) -> dict[str, object]:
    return {
        "kind": kind_name(principal.kind),
        "org_id": principal.org_id,
        "scopes": sorted(principal.scopes),
        "session_id": principal.session_id,
        "device_id": principal.device_id,
    }


def _not_ours() -> Refusal:
    return Refusal("invalid_token", "the token is not an access token; sign in again")
