"""Cursors as text, to be stored with the state made from the elements up to there. All clients use the same form."""

from __future__ import annotations

import json

from oa_base.refusal import Refusal
from oa_khala.frames import Cursor

_CHAIN_BYTES = (0, 32)
MAX_EPOCH_CHARACTERS = 64
"""Maximum length of an epoch. A gateway ends the whole connection of a client that sends more."""
_MAX_SEQ = 2**63 - 1


def write_cursor(cursor: Cursor) -> str:
    """Return the cursor as text."""
    value = {"epoch": cursor.epoch, "appliedSeq": cursor.applied_seq, "chain": cursor.chain.hex()}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_cursor(text: str) -> Cursor:
    """Return the cursor in a text of `write_cursor`. Raises Refusal `invalid_value` for any other text."""
    try:
        match json.loads(text):
            case {"epoch": str(epoch), "appliedSeq": int(seq), "chain": str(chain)} if seq is not True:
                cursor = Cursor(epoch, seq, bytes.fromhex(chain))
                if 0 <= seq <= _MAX_SEQ and len(cursor.chain) in _CHAIN_BYTES and _is_epoch(epoch):
                    return cursor
    except ValueError:
        pass
    raise Refusal("invalid_value", "this is no cursor; give the one of an update, as it was", field="cursor")


def _is_epoch(text: str) -> bool:
    """Whether it can be sent. Raises ValueError if it has no form in UTF-8."""
    return len(text) <= MAX_EPOCH_CHARACTERS and b"\0" not in text.encode()
