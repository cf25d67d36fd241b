"""Tokens: Ed25519-signed JWTs whose claims are the messages of openagents/control/v1/claims.proto.

    token = sign_token(PrincipalClaims(iss=ISSUER, sub="usr_…", aud="runtime", iat=now, nbf=now, exp=now + 60, …), key)
    claims = await TokenVerifier(keys, clock).verify(token, PrincipalClaims, audience="runtime")

A token is accepted for one purpose only, which its `typ` header names (RFC 8725, 3.11) in addition to its audience.
Unknown claims are ignored, as RFC 7519 (4) requires, so that a newer control can add one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from oa_base.clock import Clock
from oa_base.identity import ISSUER, TokenHolder, TokenKind
from oa_base.refusal import Refusal
from oa_platform.auth.jws import ALGORITHM, SignedText, read_jws, write_jws
from oa_platform.auth.keys import SigningKey
from oa_platform.auth.revocations import Revocations
from oa_platform.config.shared import CLOCK_LEEWAY_MS
from oa_platform.health.clock_watch import CONTROL, ClockWatch, skew
from openagents.control.v1 import claims_pb2

MAX_TOKEN_CHARS = 8192
MAX_REMEMBERED_TOKENS = 4096
"""How many tokens a verifier remembers; the oldest is forgotten first."""

Claims = (
    claims_pb2.AccessTokenClaims
    | claims_pb2.PrincipalClaims
    | claims_pb2.WorkerTokenClaims
    | claims_pb2.SyncTokenClaims
)
_Name = tuple[bytes, type[Claims]]
"""The hash of a token, and what it is verified as."""
C = TypeVar(
    "C",
    claims_pb2.AccessTokenClaims,
    claims_pb2.PrincipalClaims,
    claims_pb2.WorkerTokenClaims,
    claims_pb2.SyncTokenClaims,
)


TOKEN_KINDS: Mapping[type[Claims], TokenKind] = MappingProxyType(
    {
        claims_pb2.AccessTokenClaims: TokenKind.ACCESS,
        claims_pb2.PrincipalClaims: TokenKind.PRINCIPAL,
        claims_pb2.WorkerTokenClaims: TokenKind.WORKER,
        claims_pb2.SyncTokenClaims: TokenKind.SYNC,
    }
)


class KeySource(Protocol):
    """Finds public keys by key id. `oa_platform.auth.jwks` has the implementations."""

    async def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """The key; None when there is no such key. Raises Refusal(unavailable) when that can't be determined now."""
        ...


def sign_token(claims: Claims, key: SigningKey) -> str:
    """The token with these claims. All of iss, sub, aud, iat, nbf, exp and jti must be set (ValueError)."""
    payload = json_format.MessageToDict(claims, preserving_proto_field_name=True)
    missing = [name for name in ("iss", "sub", "aud", "iat", "nbf", "exp", "jti") if not payload.get(name)]
    if missing:
        raise ValueError(f"claims without {', '.join(missing)}")
    return write_jws(payload, TOKEN_KINDS[type(claims)].typ, key)


@dataclass(frozen=True, slots=True)
class _Checked:
    """The parts of a check that need not be repeated: the signature of a token holds under `key`, and its contents.

    Thousands of these are kept. In the form in which they are read, the claims would take four times the memory.
    """

    key: Ed25519PublicKey
    kid: str
    audience: str
    times: _Times
    # The claims as bytes.
    claims: bytes


class TokenVerifier:
    """Verifies tokens against control's keys.

    A token comes with every call of its bearer, so recent tokens whose signature held are remembered (by their hash).
    Their times, whether their keys still count, and whether they were revoked, are checked every time. `watch` has the
    leeway for clocks, and knows how far ours is from control's: if a token's times are wrong only because of that, the
    refusal is about the clock. A door whose tokens seldom come twice sets `max_remembered` to 0.
    """

    def __init__(
        self,
        keys: KeySource,
        clock: Clock,
        watch: ClockWatch | None = None,
        revocations: Revocations | None = None,
        max_remembered: int = MAX_REMEMBERED_TOKENS,
    ) -> None:
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._watch = watch
        self._max_remembered = max_remembered
        self._checked: dict[_Name, _Checked] = {}

    async def verify(self, token: str, claims_type: type[C], *, audience: str) -> C:
        """The claims of `token`, once everything about it was checked.

        Raises Refusal: invalid_token, token_expired, token_too_old, token_revoked, missing_jti, missing_iat; clock_skew
        when a clock is wrong and not the token; unavailable when the key is unknown and control can't be asked.
        """
        name = _name_of(token, claims_type) if self._max_remembered else None
        checked = self._checked.get(name) if name else None
        text = None
        if checked is None:
            text = _read(token, TOKEN_KINDS[claims_type].typ)
            kid = text.header.kid
        else:
            kid = checked.kid
        key = await self._keys.public_key(kid)
        if key is None:
            raise _invalid("is signed with a key that is not one of control's")
        if checked is not None and checked.key is key:
            if checked.audience != audience:
                raise _not_for(audience)
            self._check_times(checked.times, audience, TOKEN_KINDS[claims_type].max_age_s)
            claims = claims_type.FromString(checked.claims)
        else:
            payload = _payload_of(text or _read(token, TOKEN_KINDS[claims_type].typ), key)
            times = _check_registered_claims(payload, audience)
            self._check_times(times, audience, TOKEN_KINDS[claims_type].max_age_s)
            claims = _claims_of(payload, claims_type)
            if name:
                self._remember(name, _Checked(key, kid, audience, times, claims.SerializeToString()))
        if self._revocations is not None:
            self._revocations.check(holder_of(claims))
        return claims

    def left_s(self, expires_s: int) -> float:
        """How long, in seconds, a token with this `exp` is still not refused as expired."""
        return max(0.0, expires_s + self._leeway_ms() / 1000 - self._clock.time())

    def _leeway_ms(self) -> int:
        return self._watch.leeway_ms if self._watch else CLOCK_LEEWAY_MS

    def _check_times(self, times: _Times, audience: str, max_age_s: int) -> None:
        leeway_ms = self._leeway_ms()
        ahead_ms = self._watch.ahead_ms(CONTROL) if self._watch else 0
        service = self._watch.service if self._watch else audience
        allowed = f"a leeway of {leeway_ms} (OA_CLOCK_LEEWAY_MS)"
        now_ms = round(self._clock.time() * 1000)
        if times.begins_ms > now_ms + leeway_ms:
            # Control made it, so control's clock says that this moment has come.
            maker = CONTROL if service != CONTROL else "the replica of control that made the token"
            raise skew(service, maker, min(ahead_ms, now_ms - times.begins_ms), allowed)
        refusal = times.over(now_ms - leeway_ms, max_age_s)
        if refusal is not None and ahead_ms > leeway_ms and times.over(now_ms - ahead_ms, max_age_s) is None:
            raise skew(service, CONTROL, ahead_ms, allowed)
        if refusal is not None:
            raise refusal
        if times.ends_ms - times.issued_ms > max_age_s * 1000:
            raise _invalid(f"says that it holds for more than {max_age_s} s, which none of its kind does")

    def _remember(self, name: _Name, checked: _Checked) -> None:
        while len(self._checked) >= self._max_remembered:
            del self._checked[next(iter(self._checked))]
        self._checked[name] = checked


def issued_s(claims: Claims) -> float:
    """When a token with these claims was issued, in seconds since 1970 and to the millisecond."""
    return claims.iat + claims.iat_ms / 1000


def holder_of(claims: Claims) -> TokenHolder:
    """The holder of a token with these claims."""
    return TokenHolder(claims.sub, claims.org_id, claims.session_id, issued_s(claims))


def _name_of(token: str, claims_type: type[Claims]) -> _Name:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest(), claims_type


def _claims_of(payload: Mapping[str, Any], claims_type: type[C]) -> C:
    try:
        return claims_type(**_values(payload, claims_type.DESCRIPTOR))
    except (TypeError, ValueError):
        raise _invalid("has claims of a wrong type") from None


def _values(payload: object, message: Descriptor) -> dict[str, Any]:
    """The fields of `message` in a JSON object, as its constructor takes them, without those of a newer control.

    json_format does the same for every form that proto3 JSON allows, and takes ten times as long. Raises TypeError.
    """
    if not isinstance(payload, Mapping):
        raise TypeError
    values: dict[str, Any] = {}
    for name, is_repeated, read in _readers(message):
        value = payload.get(name)
        if value is None:
            continue
        if is_repeated and not isinstance(value, list):
            raise TypeError
        if read is not None:
            value = [known for one in value if (known := read(one)) is not None] if is_repeated else read(value)
        values[name] = value
    return values


_Read = Callable[[object], object]


@cache
def _readers(message: Descriptor) -> Sequence[tuple[str, bool, _Read | None]]:
    """The name of each field, whether it is repeated, and how a value is read that is not taken as it is: asking
    descriptors takes longer than all the rest."""
    return [(field.name, field.is_repeated, _reader(field)) for field in message.fields]


def _reader(field: FieldDescriptor) -> _Read | None:
    if (message := field.message_type) is not None:
        return lambda value: _values(value, message)
    if field.enum_type is not None:
        names = frozenset(field.enum_type.values_by_name)
        return lambda value: value if value in names else None
    return None


def _invalid(what: str) -> Refusal:
    return Refusal("invalid_token", f"the token {what}; get a new one")


def _not_for(audience: str) -> Refusal:
    return _invalid(f"is not for {audience}")


def _read(token: str, typ: str) -> SignedText:
    """The token in its parts, none of which is trusted yet. Raises Refusal for another kind of token."""
    if len(token) > MAX_TOKEN_CHARS:
        raise _invalid(f"is longer than {MAX_TOKEN_CHARS} characters")
    try:
        text = read_jws(token)
    except ValueError:
        raise _invalid("is not a JWT") from None
    if text.header.algorithm != ALGORITHM:
        raise _invalid(f"is not signed with {ALGORITHM}")
    if text.header.kind != typ:
        raise _invalid(f"is of another kind than {typ}")
    if not text.header.kid:
        raise _invalid("names no key")
    return text


def _payload_of(text: SignedText, key: Ed25519PublicKey) -> dict[str, Any]:
    try:
        return text.verified(key)
    except ValueError:
        raise _invalid("has a wrong signature or is malformed") from None


@dataclass(frozen=True, slots=True)
class _Times:
    """When a token was made, begins and ends, by control's clock."""

    issued_ms: int
    begins_ms: int
    ends_ms: int

    def over(self, now_ms: int, max_age_s: int) -> Refusal | None:
        """Why the token is no longer valid at `now_ms`; None while it is."""
        if now_ms >= self.ends_ms:
            return Refusal("token_expired", "the token has expired; get a new one")
        if now_ms - self.issued_ms > max_age_s * 1000:
            return Refusal("token_too_old", f"the token was issued more than {max_age_s} s ago; get a new one")
        return None


def _check_registered_claims(payload: Mapping[str, Any], audience: str) -> _Times:
    if payload.get("iss") != ISSUER:
        raise _invalid(f"was not issued by {ISSUER}")
    if payload.get("aud") != audience:
        raise _not_for(audience)
    if not payload.get("jti"):
        raise Refusal("missing_jti", "the token has no id (jti); get a new one")
    if payload.get("iat") is None:
        raise Refusal("missing_iat", "the token does not say when it was issued (iat); get a new one")
    if not payload.get("sub"):
        raise _invalid("does not say whom it is for (sub)")
    issued, not_before, expires = (_seconds(payload, name) * 1000 for name in ("iat", "nbf", "exp"))
    return _Times(issued, max(issued, not_before), expires)


def _seconds(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid(f"has no number of seconds as {name}")
    return value
