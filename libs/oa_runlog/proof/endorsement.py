"""Endorsements: how a receipt key vouches for the key that replaces it.

An endorsement is a signature by the earlier key over `openagents.receipt-key.v1:` and the 32 bytes of the later key.
Receipts begin with `{`, and checkpoints with their origin, so no signature can be taken for one of another kind.
Whoever trusts a key trusts the keys to which endorsements lead from it, and no other key that a site shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from oa_runlog.proof.ed25519 import signature_fits
from oa_runlog.proof.keys import ReceiptKey, endorsed_bytes


def endorsed(trusted: Mapping[str, bytes], shown: Iterable[ReceiptKey]) -> dict[str, bytes]:
    """Return the trusted keys, by their ids, and those of `shown` to which endorsements lead from them."""
    by_endorser: defaultdict[str, list[ReceiptKey]] = defaultdict(list)
    for key in shown:
        if key.endorsement is not None:
            by_endorser[key.endorsement.by].append(key)
    found = dict(trusted)
    endorsers = list(found)
    for endorser in endorsers:  # which grows meanwhile
        for key in by_endorser.get(endorser, ()):
            if key.key_id not in found and _fits(key, found[endorser]):
                found[key.key_id] = key.public_key
                endorsers.append(key.key_id)
    return found


def _fits(key: ReceiptKey, endorser: bytes) -> bool:
    return key.endorsement is not None and signature_fits(
        endorser, key.endorsement.signature, endorsed_bytes(key.public_key)
    )
