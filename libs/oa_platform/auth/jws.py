"""Reads and writes signed tokens: a JWS in its compact form (RFC 7515, 7.1), signed with Ed25519 (RFC 8037).

Every connection and every call needs it, so it knows only this form and this algorithm. A header is the same for all
tokens of a key, and is read or written once for all of them. libsodium checks a signature in half the time of OpenSSL,
and makes one in two thirds of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from oa_platform.auth.keys import SigningKey
from oa_wire.strict.text import read_json

ALGORITHM = "EdDSA"
_REMEMBERED_HEADERS = 64
_SIGNATURE_BYTES = 64
# The last character of 64 bytes in base64 holds two bits of them. Its other four would allow several texts for one
# token, so they have to be 0.
_LAST_OF_SIGNATURE = "AQgw"
_STANDARD = bytes.maketrans(b"-_", b"+/")


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


def write_jws(payload: Mapping[str, Any], kind: str, key: SigningKey) -> str:
    """The token of `kind` (its `typ`) with this payload. The same arguments always give the same token."""
    signed = _header_of(kind, key.kid) + b"." + _encoded(_as_json(payload))
    signature = crypto_sign(signed, key.sodium_key)[:_SIGNATURE_BYTES]
    return (signed + b"." + _encoded(signature)).decode()


@lru_cache(maxsize=_REMEMBERED_HEADERS)
def _header_of(kind: str, kid: str) -> bytes:
    return _encoded(_as_json({"alg": ALGORITHM, "kid": kid, "typ": kind}))


def _as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@lru_cache(maxsize=_REMEMBERED_HEADERS)
def _header(text: str) -> Header:
    said = _object(_decoded(text))
    if "crit" in said:
        raise ValueError("it asks for what is not known here")  # RFC 7515, 4.1.11
    return Header(*(value if isinstance(value := said.get(name), str) else "" for name in ("alg", "typ", "kid")))


def _signature(text: str) -> bytes:
    signature = _decoded(text)
    if len(signature) != _SIGNATURE_BYTES or text[-1] not in _LAST_OF_SIGNATURE:
        raise ValueError("no signature")
    return signature


def _encoded(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: str) -> bytes:
    """The bytes of base64url without padding (RFC 7515, 2). Raises ValueError, also for characters beyond ASCII."""
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("not base64url without padding")
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    return binascii.a2b_base64(padded.translate(_STANDARD), strict_mode=True)


def _object(data: bytes) -> dict[str, Any]:
    value = read_json(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
