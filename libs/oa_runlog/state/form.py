"""The canonical form of a run's state, and its hash: the basis for comparing two replays, today's and yesterday's.

A member that has its default is left out. So adding a field with a default changes no hash of a run that doesn't use
the field, and the hashes of recorded histories stay valid (docs/protocol/histories.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.state.run import MAX_TOTAL, RunState


def state_form(state: RunState | None) -> Canonical:
    """Return everything that the reducer knows of a run, as JSON; None for a run without events.

    Bytes are hexadecimal, enums are their words, and an integer beyond 2^53 - 1 (every time is one) is decimal text.
    Fields that are not compared in states are left out.
    """
    return _form(state)


def state_hash(state: RunState | None) -> str:
    """Return the SHA-256 of the canonical JSON (RFC 8785) of `state_form`, in hexadecimal."""
    return hashlib.sha256(canonical_json(state_form(state))).hexdigest()


def _form(value: Any) -> Canonical:
    if is_dataclass(value):
        compared = ((item, getattr(value, item.name)) for item in fields(value) if item.compare)
        return {
            item.name: _form(member) for item, member in compared if item.default is MISSING or member != item.default
        }
    match value:
        case bytes():
            return value.hex()
        case str():
            return str(value)
        case int() if abs(value) > MAX_TOTAL:
            return str(value)
        case None | bool() | int():
            return value
        case tuple():
            return [_form(member) for member in value]
        case _:
            raise TypeError(f"a {type(value).__name__} has no place in a run's state")
