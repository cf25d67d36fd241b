"""Receipt keys, trusted on first use: a site's receipts must be signed with the keys that it showed first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from oa_base.refusal import Refusal
from oa_runlog.proof.receipt import key_id_of
from oa_wire.strict.text import read_base64

_KEY_BYTES = 32
"""An Ed25519 public key."""


class PinStore(Protocol):
    """Keeps the pinned keys of one site."""

    def load(self) -> dict[str, bytes]:
        """Return key id -> 32 bytes of Ed25519 public key."""

    def save(self, keys: Mapping[str, bytes]) -> None:
        """Replace the keys, whole or not at all."""


def trusted_keys(pinned: Mapping[str, bytes], shown: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the keys to check with: the pinned ones, or on first use those that the site shows.

    A site that rotates its key still shows an old one that is pinned; its new keys are then added. A site that shows
    none of the pinned keys is another site, or has been replaced: Refusal `unknown_key`. So is one that shows a key
    under an id that is not the key's: people compare ids with those that they know from elsewhere.
    """
    if not have_their_ids(shown):
        text = "the site shows a key under an id that is not the key's; trust none of its keys, and tell its operators"
        raise Refusal("unknown_key", text, field="key_id")
    if not pinned:
        return dict(shown)
    if any(shown.get(key_id) == key for key_id, key in pinned.items()):
        return {**shown, **pinned}
    raise Refusal(
        "unknown_key",
        f"the site signs with {', '.join(sorted(shown)) or 'no key'}, but {', '.join(sorted(pinned))} is pinned; "
        "if it was installed anew, `oa receipt keys --pin` trusts it again",
        field="key_id",
    )


def have_their_ids(keys: Mapping[str, bytes]) -> bool:
    """Whether all of these are keys, and stand under their own ids."""
    return all(len(key) == _KEY_BYTES and key_id_of(key) == key_id for key_id, key in keys.items())


def keys_of(texts: Iterable[str]) -> dict[str, bytes]:
    """Return key id -> key for public keys in base64. Raises Refusal `invalid_value`."""
    try:
        keys = [read_base64(text) for text in texts]
    except ValueError:
        keys = [b""]
    if any(len(key) != _KEY_BYTES for key in keys):
        raise Refusal("invalid_value", "a key is 32 bytes in base64; copy it whole")
    return {key_id_of(key): key for key in keys}
