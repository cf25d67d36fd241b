"""Signed tokens have one form only, and another library reads and writes them as this one does."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_platform.auth.jws import read_jws, write_jws
from oa_platform.auth.keys import SigningKey

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(payload: bytes, header: dict[str, Any]) -> str:
    text = f"{_text(json.dumps(header).encode())}.{_text(payload)}"
    return f"{text}.{_text(KEY.sign(text.encode()))}"


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_another_library_signs_is_read_as_it_was_meant(payload: dict[str, Any]) -> None:
    # PyJWT has rules of its own for registered names; the form is the question here.
    token = jwt.encode({"payload": payload}, KEY, algorithm="EdDSA", headers={"kid": "k1", "typ": "t1"})
    text = read_jws(token)
    assert (text.header.algorithm, text.header.kind, text.header.kid) == ("EdDSA", "t1", "k1")
    assert text.verified(KEY.public_key()) == {"payload": payload}
    with pytest.raises(ValueError):
        text.verified(OTHER_KEY.public_key())


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_token_is_written_as_another_library_writes_it(payload: dict[str, Any]) -> None:
    token = write_jws({"payload": payload}, "t1", SigningKey("k1", KEY))
    assert token == jwt.encode({"payload": payload}, KEY, algorithm="EdDSA", headers={"kid": "k1", "typ": "t1"})


@given(st.data())
def test_one_changed_character_makes_it_another_token(data: st.DataObject) -> None:
    token = _signed(b'{"sub":"usr_1","n":1}', {"alg": "EdDSA", "kid": "k1", "typ": "t1"})
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[place]))
    with pytest.raises(ValueError):
        read_jws(token[:place] + other + token[place + 1 :]).verified(KEY.public_key())


def test_a_signature_has_one_last_character() -> None:
    token = _signed(b"{}", {"alg": "EdDSA", "kid": "k1"})
    alphabet = string.ascii_letters + string.digits + "-_"
    for other in set(alphabet) - {token[-1]}:
        with pytest.raises(ValueError):
            read_jws(token[:-1] + other).verified(KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "=",
        lambda token: token + ".",
        lambda token: "." + token,
        lambda token: token.replace(".", "..", 1),
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0] + "." + _text(bytes(63)),
        lambda token: token.rpartition(".")[0] + "." + _text(bytes(65)),
        lambda token: token + "\n",
        lambda token: " " + token,
    ],
)
def test_other_forms_are_none(change: Any) -> None:
    token = _signed(b"{}", {"alg": "EdDSA", "kid": "k1"})
    assert read_jws(token).verified(KEY.public_key()) == {}
    with pytest.raises(ValueError):
        read_jws(change(token)).verified(KEY.public_key())


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b'{"a":1,"a":2}', b"{", b'{"a":NaN}', b"\xff"], ids=str)
def test_a_payload_is_an_object_of_one_meaning(payload: bytes) -> None:
    with pytest.raises(ValueError):
        read_jws(_signed(payload, {"alg": "EdDSA", "kid": "k1"})).verified(KEY.public_key())


def test_a_header_that_asks_for_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError):
        read_jws(_signed(b"{}", {"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": False}))


@pytest.mark.parametrize("kid", [None, 1, [], {}, True], ids=str)
def test_what_a_header_says_is_text_or_nothing(kid: object) -> None:
    assert read_jws(_signed(b"{}", {"alg": "EdDSA", "kid": kid})).header.kid == ""
