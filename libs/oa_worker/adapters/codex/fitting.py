"""JSON from elsewhere as an event may hold it: text that can be stored, not too deep, not too large. Pure.

A note takes the place of everything that is left out.
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from oa_base.visible import storable

_SHORTEST_CHARS = 64
"""Texts are not cut below this; content that is still too large then has too many parts."""


def fitted(content: Any, max_bytes: int, max_nesting: int) -> Struct:
    """Return the content as an event holds it; content that is not an object becomes the `value` of one."""
    whole = content if isinstance(content, dict) else {"value": content}
    max_chars = max_bytes
    while True:
        made = _struct(_plain(whole, max_chars, max_nesting))
        if made.ByteSize() <= max_bytes:
            return made
        if max_chars <= _SHORTEST_CHARS:
            return _struct({"left_out": f"{made.ByteSize()} bytes, more than {max_bytes}"})
        max_chars //= 2


def cut(text: str, max_bytes: int) -> str:
    """Return the beginning of a text, in at most so many bytes; a text that was cut says how long the whole is."""
    data = text.encode()
    if len(data) <= max_bytes:
        return text
    note = f"… {len(data)} bytes in all, cut here"
    return data[: max(0, max_bytes - len(note.encode()))].decode("utf-8", "ignore") + note


def pieces(text: str, max_bytes: int) -> list[str]:
    """Return a text in parts of at most so many bytes, which together are the whole text."""
    max_chars = max_bytes // 4  # a character has at most four bytes
    return [text[start : start + max_chars] for start in range(0, len(text), max_chars)]


def _plain(value: Any, max_chars: int, levels: int) -> Any:
    if isinstance(value, dict | list) and not levels:
        return "left out: nested too deeply"
    match value:
        case dict():
            return {storable(name)[:max_chars]: _plain(each, max_chars, levels - 1) for name, each in value.items()}
        case list():
            return [_plain(each, max_chars, levels - 1) for each in value]
        case str():
            return cut(storable(value), max_chars)
        case bool() | None:
            return value
        case int() if abs(value) >= 2**53:  # an event's numbers are doubles
            return str(value)
        case float() if not math.isfinite(value):  # 1e999
            return str(value)
        case _:
            return value


def _struct(plain: dict[str, Any]) -> Struct:
    return json_format.ParseDict(plain, Struct())
