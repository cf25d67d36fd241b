"""Which keys are trusted."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.site import FilePins
from oa_client.proofs.pins import keys_of, trusted_keys
from oa_runlog.proof.receipt import key_id_of
from oa_runlog.tests.records import KEYS, MALLORY, SIGNER

FOREIGN = {MALLORY.key_id: MALLORY.public_key}


@pytest.mark.parametrize(
    ("pinned", "shown", "trusted"),
    [
        ({}, KEYS, KEYS),
        ({}, {}, {}),
        (KEYS, KEYS, KEYS),
        (KEYS, {**KEYS, **FOREIGN}, {**KEYS, **FOREIGN}),
        ({**KEYS, **FOREIGN}, KEYS, {**KEYS, **FOREIGN}),
    ],
    ids=["first use", "a site without keys", "the same", "rotated", "an old one is gone"],
)
def test_what_was_shown_first_stays_trusted(
    pinned: dict[str, bytes], shown: dict[str, bytes], trusted: dict[str, bytes]
) -> None:
    assert trusted_keys(pinned, shown) == trusted


@pytest.mark.parametrize("shown", [{}, FOREIGN, {SIGNER.key_id: MALLORY.public_key}])
def test_a_site_that_shows_none_of_the_pinned_is_refused(shown: dict[str, bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        trusted_keys(KEYS, shown)
    assert caught.value.reason == "unknown_key"


@pytest.mark.parametrize("pinned", [{}, KEYS])
@pytest.mark.parametrize(
    "other", [{SIGNER.key_id[::-1]: MALLORY.public_key}, {key_id_of(b"short"): b"short"}], ids=["id", "length"]
)
def test_a_key_under_an_id_that_is_not_its_own_is_refused(pinned: dict[str, bytes], other: dict[str, bytes]) -> None:
    """People compare ids with those that they were given elsewhere."""
    with pytest.raises(Refusal) as caught:
        trusted_keys(pinned, {**KEYS, **other})
    assert caught.value.reason == "unknown_key"


@pytest.mark.parametrize("key_id", ["a", SIGNER.key_id])
def test_pins_that_say_so_are_not_read(key_id: str, tmp_path: Path) -> None:
    pins = FilePins(tmp_path)
    pins.save({key_id: MALLORY.public_key})
    with pytest.raises(Refusal) as caught:
        pins.load()
    assert caught.value.reason == "unknown_key"
    pins.save(KEYS)
    assert pins.load() == KEYS


def test_keys_that_somebody_gives_are_read_in_their_one_form() -> None:
    text = base64.b64encode(SIGNER.public_key).decode()
    assert keys_of([text]) == KEYS
    assert keys_of([]) == {}
    for wrong in ("x", "AAAA", "", text + "QUJD", text.rstrip("="), "é"):
        with pytest.raises(Refusal) as caught:
            keys_of([text, wrong])
        assert caught.value.reason == "invalid_value"
