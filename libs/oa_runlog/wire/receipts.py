"""Signed receipts <-> `Receipt`, and the keys that they are signed with <-> `ReceiptKey`."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_runlog.proof.keys import PUBLIC_KEY_BYTES, Endorsement, ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.wire.fields import need
from openagents.runtime.v1 import receipt_pb2


def receipt_to_wire(receipt: SignedReceipt) -> receipt_pb2.Receipt:
    """The message for a receipt."""
    return receipt_pb2.Receipt(
        run_id=receipt.run_id,
        canonical_json=receipt.canonical_json,
        signature=receipt.signature,
        key_id=receipt.key_id,
    )


def receipt_from_wire(message: receipt_pb2.Receipt) -> SignedReceipt:
    """The receipt in a message. Raises Refusal. It does not verify the receipt: `verify_receipt` does."""
    for field in ("run_id", "canonical_json", "signature", "key_id"):
        need(getattr(message, field), field)
    return SignedReceipt(message.run_id, message.canonical_json, message.signature, message.key_id)


def receipt_key_to_wire(key: ReceiptKey) -> receipt_pb2.ReceiptKey:
    """The message for a key."""
    message = receipt_pb2.ReceiptKey(key_id=key.key_id, public_key=key.public_key)
    if key.endorsement is not None:
        message.endorsed_by, message.endorsement = key.endorsement.by, key.endorsement.signature
    return message


def receipt_key_from_wire(message: receipt_pb2.ReceiptKey) -> ReceiptKey:
    """The key in a message. It does not verify the endorsement: `endorsed` does.

    Raises Refusal `unknown_key` for a key under an id that is not its own: people compare ids with those that they were
    given elsewhere.
    """
    endorsement = Endorsement(message.endorsed_by, message.endorsement) if message.endorsed_by else None
    key = ReceiptKey(message.public_key, endorsement)
    if len(key.public_key) != PUBLIC_KEY_BYTES or key.key_id != message.key_id:
        text = "the site shows a key under an id that is not the key's; trust none of its keys, and tell its operators"
        raise Refusal("unknown_key", text, field="key_id")
    return key
