"""Ed25519 keys: made, kept as PEM, named by their RFC 7638 thumbprint, published as a JWK set (RFC 7517, 8037)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from oa_platform.config.loading import Problem
from oa_platform.config.production import weakness
from oa_wire.strict.text import read_any_base64

_PUBLIC_KEY_BYTES = 32
_PUBLIC_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    """A private key and its id."""

    kid: str
    private_key: Ed25519PrivateKey

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return self.private_key.public_key()

    @cached_property
    def sodium_key(self) -> bytes:
        """The key as libsodium takes it: the seed, then the public key."""
        return self.private_key.private_bytes_raw() + self.public_key.public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"


def generate_key() -> SigningKey:
    """A new key."""
    return _named(Ed25519PrivateKey.generate())


def load_key(pem: str) -> SigningKey:
    """The key in PKCS #8 PEM text; raises ValueError, which doesn't show the text."""
    try:
        private_key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("not an unencrypted private key in PEM form") from None
    if not isinstance(private_key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return _named(private_key)


def public_keys_of_pem(text: str) -> Sequence[Ed25519PublicKey]:
    """The Ed25519 public keys in a file of PEM blocks. Raises ValueError if it holds a key of another kind, or none."""
    found = [_key_of_block(block) for block in _PUBLIC_PEM.findall(text)]
    if not found:
        raise ValueError("no public key in PEM form")
    return found


def _key_of_block(pem: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM form") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key


def unusable_key(variable: str, pem: str) -> Iterator[Problem]:
    """The problem with a text that `load_key` refuses. It doesn't show the text."""
    try:
        load_key(pem)
    except ValueError as error:
        yield variable, f"{variable} is {error}; give it an Ed25519 private key, PKCS #8 in PEM"


def weak_key(variable: str, pem: str) -> Iterator[Problem]:
    """The problem with a private key that could be guessed; none for a text that `load_key` refuses."""
    try:
        seed = load_key(pem).private_key.private_bytes_raw()
    except ValueError:
        return
    if weakness(seed):
        yield variable, f"{variable} is a key that could be guessed; make one with openssl genpkey -algorithm ed25519"


def is_same_key(pem: str, other_pem: str) -> bool:
    """Whether two texts hold the same key, however it is written; False for a text that `load_key` refuses."""
    try:
        return load_key(pem).kid == load_key(other_pem).kid
    except ValueError:
        return False


def dump_key(key: SigningKey) -> str:
    """The private key as PKCS #8 PEM text."""
    return key.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def thumbprint(key: Ed25519PublicKey) -> str:
    """The key's id: its JWK thumbprint (RFC 7638, 3; members of an OKP key by RFC 8037, 2), base64url."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _b64(key.public_bytes_raw())}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _b64(hashlib.sha256(canonical.encode()).digest())


def to_jwks(keys: Iterable[Ed25519PublicKey]) -> dict[str, Any]:
    """The JWK set that control publishes at /.well-known/jwks.json."""
    return {"keys": [_to_jwk(key) for key in keys]}


def from_jwks(document: object) -> Mapping[str, Ed25519PublicKey]:
    """Key id -> key, of the Ed25519 signature keys in a JWK set; raises ValueError when it is not a JWK set.

    Keys of other kinds are skipped (RFC 7517, 5), so that control may add some.
    """
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JWK set")
    found = {}
    for jwk in document["keys"]:
        if isinstance(jwk, dict) and jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519":
            kid = jwk.get("kid")
            if not isinstance(kid, str) or not kid:
                raise ValueError("a key of the set has no kid")
            found[kid] = _public_key(jwk.get("x"))
    return found


def _to_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _b64(key.public_bytes_raw()),
        "kid": thumbprint(key),
        "use": "sig",
        "alg": "EdDSA",
    }


def _public_key(encoded: object) -> Ed25519PublicKey:
    try:
        raw = read_any_base64(encoded) if isinstance(encoded, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != _PUBLIC_KEY_BYTES:
        raise ValueError("a key of the set is no Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw)


def _named(private_key: Ed25519PrivateKey) -> SigningKey:
    return SigningKey(thumbprint(private_key.public_key()), private_key)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
