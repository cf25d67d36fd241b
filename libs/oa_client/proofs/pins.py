"""Receipt keys, trusted on first use: a site's receipts must be signed with the keys that it showed first, or with keys
that those endorse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from oa_base.refusal import Refusal
from oa_runlog.proof.endorsement import endorsed
from oa_runlog.proof.keys import PUBLIC_KEY_BYTES, ReceiptKey
from oa_runlog.proof.receipt import key_id_of
from oa_wire.strict.text import read_base64


class PinStore(Protocol):
    """Keeps the pinned keys of one site."""

    def load(self) -> dict[str, bytes]:
        """Return key id -> 32 bytes of Ed25519 public key."""

    def save(self, keys: Mapping[str, bytes]) -> None:
        """Replace the keys, whole or not at all."""


def trusted_keys(pinned: Mapping[str, bytes], shown: Iterable[ReceiptKey]) -> dict[str, bytes]:
    """Return the keys to check with, by their ids: on first use those that the site shows; later the pinned ones, and
    those that they endorse.

    Everybody knows the public keys, so a site that shows pinned ones shows nothing of its own: another key beside them
    is not trusted for that. A site that shows none of the trusted keys is another site, or has been replaced: Refusal
    `unknown_key`.
    """
    keys = list(shown)
    ids = {key.key_id: key.public_key for key in keys}
    if not pinned:
        return ids
    trusted = endorsed(pinned, keys)
    if not ids.keys().isdisjoint(trusted):
        return trusted
    raise Refusal(
        "unknown_key",
        f"the site signs with {', '.join(sorted(ids)) or 'no key'}, but {', '.join(sorted(pinned))} is pinned; "
        "if it was installed anew, `oa receipt keys --pin` trusts it again",
        field="key_id",
    )


def have_their_ids(keys: Mapping[str, bytes]) -> bool:
    """Whether all of these are keys, and stand under their own ids."""
    return all(len(key) == PUBLIC_KEY_BYTES and key_id_of(key) == key_id for key_id, key in keys.items())


def keys_of(texts: Iterable[str]) -> dict[str, bytes]:
    """Return key id -> key for public keys in base64. Raises Refusal `invalid_value`."""
    try:
        keys = [read_base64(text) for text in texts]
    except ValueError:
        keys = [b""]
    if any(len(key) != PUBLIC_KEY_BYTES for key in keys):
        raise Refusal("invalid_value", "a key is 32 bytes in base64; copy it whole")
    return {key_id_of(key): key for key in keys}
