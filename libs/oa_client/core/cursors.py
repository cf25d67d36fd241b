"""Cursors as text, to be stored with the state made from the elements up to there. All clients use the same form."""

from __future__ import annotations

import json

from oa_base.refusal import Refusal
from oa_khala.frames import Cursor

_CHAIN_BYTES = (0, 32)


def write_cursor(cursor: Cursor) -> str:
    """Return the cursor as text."""
    value = {"epoch": cursor.epoch, "appliedSeq": cursor.applied_seq, "chain": cursor.chain.hex()}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_cursor(text: str) -> Cursor:
    """Return the cursor in a text of `write_cursor`. Raises Refusal `invalid_value` for any other text."""
    try:
        match json.loads(text):
            case {"epoch": str(epoch), "appliedSeq": int(seq), "chain": str(chain)} if seq >= 0 and seq is not True:
                cursor = Cursor(epoch, seq, bytes.fromhex(chain))
                if len(cursor.chain) in _CHAIN_BYTES:
                    return cursor
    except ValueError:
        pass
    raise Refusal("invalid_value", "this is no cursor; give the one of an update, as it was", field="cursor")
