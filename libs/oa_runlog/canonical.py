"""Canonical JSON, RFC 8785: one value has one form, so that a signature over the bytes is one over the value.

Floats are left out: nothing that we sign holds any, and their form is the hard half of the RFC. Integers stay within
±(2^53 - 1), where every reader of JSON agrees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from oa_runlog.state import MAX_TOTAL

Canonical = None | bool | int | str | Sequence["Canonical"] | Mapping[str, "Canonical"]
"""Values that have a canonical form."""

_AS_IS = json.JSONEncoder(ensure_ascii=False)


def canonical_json(value: Canonical) -> bytes:
    """Return the canonical form of `value` in UTF-8. Raises ValueError if it has none (a float, a lone surrogate)."""
    return _text(value).encode()


def _text(value: object) -> str:
    match value:
        case None | bool() | str():
            # json's escapes are those of RFC 8785: the short ones, \u00xx in lower case, nothing more than needed.
            return _AS_IS.encode(value)
        case int():
            if abs(value) > MAX_TOTAL:
                raise ValueError("an integer beyond 2^53 - 1 has no canonical form")
            return str(value)
        case Mapping():
            members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
            return "{" + ",".join(f"{_text(name)}:{_text(member)}" for name, member in members) + "}"
        case Sequence():
            return "[" + ",".join(_text(element) for element in value) + "]"
        case _:
            raise ValueError(f"a {type(value).__name__} has no canonical form here")
