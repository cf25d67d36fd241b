"""Keys keep their names through files and JWK sets, and broken ones are refused without being shown."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oa_platform.auth.keys import dump_key, from_jwks, generate_key, load_key, thumbprint, to_jwks


def test_the_thumbprint_is_the_one_of_rfc_8037() -> None:
    """RFC 8037, appendices A.2 and A.3."""
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert thumbprint(Ed25519PublicKey.from_public_bytes(raw)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_key_survives_pem() -> None:
    key = generate_key()
    copy = load_key(dump_key(key))
    assert copy.kid == key.kid
    assert copy.private_key.private_bytes_raw() == key.private_key.private_bytes_raw()
    assert "PRIVATE" not in repr(key)


def test_other_keys_are_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (other.decode(), "geheim", ""):
        with pytest.raises(ValueError, match="not an") as caught:
            load_key(pem)
        assert "geheim" not in str(caught.value)


def test_public_keys_survive_a_jwk_set() -> None:
    made = [generate_key(), generate_key()]
    document = to_jwks(key.public_key for key in made)
    found = from_jwks(document)
    assert set(found) == {key.kid for key in made}
    assert all(found[key.kid].public_bytes_raw() == key.public_key.public_bytes_raw() for key in made)
    assert '"d"' not in str(document)


def test_keys_of_other_kinds_are_passed_over() -> None:
    assert from_jwks({"keys": [{"kty": "RSA", "kid": "1"}, {"kty": "OKP", "crv": "X25519"}, "?"]}) == {}


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"keys": 1},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "k"}]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": 5, "kid": "k"}]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "ä", "kid": "k"}]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]},
    ],
)  # fmt: skip
def test_what_is_no_jwk_set_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="set"):
        from_jwks(document)
