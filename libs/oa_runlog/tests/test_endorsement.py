"""A key is trusted if a trusted one endorses it, at any distance, and for no other reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.proof.endorsement import endorsed
from oa_runlog.proof.keys import Endorsement, ReceiptKey, endorsed_bytes
from oa_runlog.proof.receipt import key_id_of
from oa_runlog.proof.signing import ReceiptSigner
from openagents.runtime.v1 import receipt_pb2

SIGNERS = [ReceiptSigner(Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))) for number in range(6)]
FIRST, SECOND, THIRD = SIGNERS[:3]
TRUSTED = {FIRST.key_id: FIRST.public_key}


def endorsed_key(signer: ReceiptSigner, by: ReceiptSigner) -> ReceiptKey:
    return ReceiptKey(signer.public_key, by.endorse(signer.public_key))


@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(0, 5)), unique_by=lambda pair: pair[0]))
def test_trust_reaches_what_endorsements_lead_to(pairs: list[tuple[int, int | None]]) -> None:
    shown = [
        ReceiptKey(SIGNERS[key].public_key) if by is None else endorsed_key(SIGNERS[key], SIGNERS[by])
        for key, by in pairs
    ]
    endorsers = dict(pairs)

    def leads_from_the_first(key: int) -> bool:
        way: list[int] = []
        at: int | None = key
        while at is not None and at != 0 and at not in way:
            way.append(at)
            at = endorsers.get(at)
        return at == 0

    expected = {SIGNERS[key].key_id for key in endorsers if leads_from_the_first(key)}
    assert endorsed(TRUSTED, shown).keys() == {FIRST.key_id} | expected


GOOD = endorsed_key(SECOND, FIRST)
SIGNATURE = FIRST.endorse(SECOND.public_key).signature


@pytest.mark.parametrize(
    "key",
    [
        replace(GOOD, public_key=THIRD.public_key),
        replace(GOOD, endorsement=Endorsement(FIRST.key_id, SIGNATURE[:-1] + bytes([SIGNATURE[-1] ^ 1]))),
        replace(GOOD, endorsement=Endorsement(FIRST.key_id, b"")),
        replace(GOOD, endorsement=Endorsement(FIRST.key_id, SECOND.endorse(SECOND.public_key).signature)),
        replace(GOOD, endorsement=Endorsement(THIRD.key_id, SIGNATURE)),
        replace(GOOD, endorsement=None),
    ],
    ids=["of another key", "changed", "empty", "signed by itself", "under another name", "none"],
)
def test_no_other_signature_makes_a_key_trusted(key: ReceiptKey) -> None:
    assert endorsed(TRUSTED, [GOOD]).keys() == {FIRST.key_id, SECOND.key_id}
    assert endorsed(TRUSTED, [key]) == TRUSTED


def test_an_endorsement_is_a_signature_of_no_other_kind() -> None:
    assert endorsed_bytes(SECOND.public_key) == b"openagents.receipt-key.v1:" + SECOND.public_key


@pytest.mark.parametrize("key", [GOOD, ReceiptKey(FIRST.public_key)], ids=["endorsed", "not endorsed"])
def test_a_message_has_the_whole_key(key: ReceiptKey) -> None:
    data = wire.receipt_key_to_wire(key).SerializeToString()
    assert wire.receipt_key_from_wire(receipt_pb2.ReceiptKey.FromString(data)) == key


@pytest.mark.parametrize(
    ("key_id", "public_key"),
    [(FIRST.key_id, SECOND.public_key), ("", SECOND.public_key), (key_id_of(b"short"), b"short")],
    ids=["of another key", "none", "no key"],
)
def test_a_key_under_an_id_that_is_not_its_own_is_refused(key_id: str, public_key: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        wire.receipt_key_from_wire(receipt_pb2.ReceiptKey(key_id=key_id, public_key=public_key))
    assert (caught.value.reason, caught.value.field) == ("unknown_key", "key_id")
