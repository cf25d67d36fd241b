"""Control's tokens as JWTs: signed with its current key, verified against all keys that it publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import json_format

from oa_base.identity import EDGE_AUDIENCE, TokenKind
from oa_platform.auth import tokens
from oa_platform.auth.keys import SigningKey
from openagents.control.v1 import claims_pb2
from services.control.policy.app import VerifiedToken
from services.control.tokens.domain import Claims, principal_of

_MESSAGES: Mapping[TokenKind, Callable[..., tokens.Claims]] = {
    kind: message for message, kind in tokens.TOKEN_KINDS.items()
}


@dataclass(frozen=True)
class KeyRing:
    """The keys of the settings: the one that signs until an operator rotates it, and further public keys that are
    published and accepted."""

    signing: SigningKey
    published: Sequence[Ed25519PublicKey] = ()

    @property
    def public_keys(self) -> Sequence[Ed25519PublicKey]:
        """All keys that verify, the signing key first, each once."""
        unique = {key.public_bytes_raw(): key for key in (self.signing.public_key, *self.published)}
        return tuple(unique.values())


class JwtSigner:
    """See `app.TokenSigner`."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @property
    def key_id(self) -> str:
        """The key's id."""
        return self._key.kid

    def sign(self, claims: Claims) -> str:
        """Return the JWT. Ed25519 is deterministic (RFC 8032): the same claims and the same key give the same token."""
        return tokens.sign_token(_MESSAGES[claims.kind](**claims.values), self._key)


class CurrentSigner:
    """See `app.TokenSigner`. Signs with the key that `current` returns at that moment."""

    def __init__(self, current: Callable[[], SigningKey]) -> None:
        self._current = current

    @property
    def key_id(self) -> str:
        """The id of the current key."""
        return self._current().kid

    def sign(self, claims: Claims) -> str:
        """The JWT."""
        return JwtSigner(self._current()).sign(claims)


class JwtVerifier:
    """See `policy.app.AccessTokenVerifier`."""

    def __init__(self, verifier: tokens.TokenVerifier) -> None:
        self._verifier = verifier

    async def verify(self, token: str) -> VerifiedToken:
        """Verify an access token for the edge, and return what it says."""
        message = await self._verifier.verify(token, claims_pb2.AccessTokenClaims, audience=EDGE_AUDIENCE)
        return _said(message.SerializeToString())


@lru_cache(tokens.MAX_REMEMBERED_TOKENS)
def _said(claims: bytes) -> VerifiedToken:
    """Parse verified claims. A token comes with every call of its bearer, and is parsed once."""
    message = claims_pb2.AccessTokenClaims.FromString(claims)
    values = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return VerifiedToken(principal_of(values), str(values.get("jti", "")))
