"""Which keys are trusted."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.site import FilePins
from oa_client.proofs.pins import keys_of, trusted_keys
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.tests.records import KEYS, MALLORY, SIGNER

OWN, FOREIGN = ReceiptKey(SIGNER.public_key), ReceiptKey(MALLORY.public_key)
ENDORSED = replace(FOREIGN, endorsement=SIGNER.endorse(MALLORY.public_key))
BOTH = {**KEYS, MALLORY.key_id: MALLORY.public_key}


@pytest.mark.parametrize(
    ("pinned", "shown", "trusted"),
    [
        ({}, [OWN], KEYS),
        ({}, [], {}),
        ({}, [FOREIGN, OWN], BOTH),
        (KEYS, [OWN], KEYS),
        (KEYS, [OWN, ENDORSED], BOTH),
        (KEYS, [ENDORSED], BOTH),
        (BOTH, [OWN], BOTH),
        (KEYS, [OWN, FOREIGN], KEYS),
    ],
    ids=["first", "no keys", "two at first", "the same", "rotated", "old one gone", "new one gone", "not endorsed"],
)
def test_what_was_shown_first_and_what_it_endorses_is_trusted(
    pinned: dict[str, bytes], shown: list[ReceiptKey], trusted: dict[str, bytes]
) -> None:
    assert trusted_keys(pinned, shown) == trusted


@pytest.mark.parametrize("shown", [[], [FOREIGN], [replace(FOREIGN, endorsement=MALLORY.endorse(MALLORY.public_key))]])
def test_a_site_that_shows_none_of_the_trusted_is_refused(shown: list[ReceiptKey]) -> None:
    with pytest.raises(Refusal) as caught:
        trusted_keys(KEYS, shown)
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
