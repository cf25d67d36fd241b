"""Reads signed tokens: a JWS in its compact form (RFC 7515, 7.1), signed with Ed25519 (RFC 8037).

Every connection and every call needs it, so it reads only this form and this algorithm. A header is the same for all
tokens of a key, and is read once for all of them. libsodium checks a signature in half the time of OpenSSL.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from oa_wire.strict_text import read_json

ALGORITHM = "EdDSA"
_REMEMBERED_HEADERS = 64
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a token, before anything in it is known to be true. A field is empty if the token lacks it."""

    algorithm: str
    kind: str
    kid: str


@dataclass(frozen=True, slots=True)
class SignedText:
    """A token in its parts, not verified yet."""

    header: Header
    _signed: bytes
    _payload: str
    _signature: bytes

    def verified(self, key: Ed25519PublicKey) -> dict[str, Any]:
        """The payload. Raises ValueError if `key` did not sign it, or if it is not an object."""
        try:
            crypto_sign_open(self._signature + self._signed, key.public_bytes_raw())
        except BadSignatureError:
            raise ValueError("another signature") from None
        return _object(_decoded(self._payload))


def read_jws(token: str) -> SignedText:
    """The parts of a token. Raises ValueError for a text that is not a token."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not three parts")
    header, payload, signature = parts
    signed = f"{header}.{payload}".encode("ascii")
    return SignedText(_header(header), signed, payload, _signature(signature))


@lru_cache(maxsize=_REMEMBERED_HEADERS)
def _header(text: str) -> Header:
    said = _object(_decoded(text))
    if "crit" in said:
        raise ValueError("it asks for what is not known here")  # RFC 7515, 4.1.11
    return Header(*(value if isinstance(value := said.get(name), str) else "" for name in ("alg", "typ", "kid")))


def _signature(text: str) -> bytes:
    signature = _decoded(text)
    # The unused bits of the last character would allow several texts for one token.
    if len(signature) != _SIGNATURE_BYTES or base64.urlsafe_b64encode(signature).rstrip(b"=") != text.encode():
        raise ValueError("no signature")
    return signature


def _decoded(text: str) -> bytes:
    """The bytes of base64url without padding (RFC 7515, 2). Raises ValueError, also for characters beyond ASCII."""
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("not base64url without padding")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _object(data: bytes) -> dict[str, Any]:
    value = read_json(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
