"""JSON and base64 with one meaning each, for everything that proves something or comes from outside.

Python's own readers are lenient: if a key occurs twice in an object, the last value counts; bytes may be UTF-16; deep
nesting ends in a RecursionError; and base64 may have bits without meaning. Two readers that disagree about such a text
disagree about what it proves, so it is refused here, with a ValueError, for the caller to name.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, NoReturn

MAX_JSON_DEPTH = 100
"""Maximum nesting of objects and arrays: as deep as protobuf's own readers go."""


class Unstrict(ValueError):
    """JSON that readers would take in different ways, or not at all. Its text says what to do, and shows no value."""


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; bytes are UTF-8. Raises ValueError for everything else.

    That is: no JSON; and, as Unstrict, a key twice in one object, NaN and infinities, nesting deeper than
    MAX_JSON_DEPTH.
    """
    plain = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        value = _DECODER.decode(plain)
    except RecursionError:
        raise _too_deep() from None
    if plain.count("{") + plain.count("[") > MAX_JSON_DEPTH:  # fewer can't be nested as deep
        _check_depth(value)
    return value


def check_whole(text: str) -> None:
    """Check that a text that `read_json` reads holds no half of a surrogate pair (`"\\ud800"`), for which UTF-8 has no
    bytes. Raises Unstrict. `read_json` reads such texts, because stored ones may have them."""
    if _MAY_BE_HALF.search(text) is None:
        return
    try:
        json.dumps(read_json(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unstrict("a text in it holds half a character; give whole ones") from None


_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_base64(text: str) -> bytes:
    """Return the bytes of canonical standard base64 with padding. Raises ValueError for every other text."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not the one form of these bytes in base64")
    return data


def read_any_base64(text: str) -> bytes:
    """Like `read_base64`, but in each of the four forms that proto3 JSON takes: either alphabet, padded or not."""
    padded = text if "=" in text else text + "=" * (-len(text) % 4)
    if "+" not in padded and "/" not in padded:
        padded = padded.translate(_STANDARD)
    return read_base64(padded)


_STANDARD = str.maketrans("-_", "+/")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unstrict("a member stands twice in one object; send it once")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unstrict("a number is too large for a double; send a smaller one")
    return number


def _no_constant(_: str) -> NoReturn:
    raise Unstrict("NaN and Infinity are no numbers of JSON; leave the member out, or send a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_doubles, parse_float=_finite, parse_constant=_no_constant)


def _check_depth(value: Any) -> None:
    """Check the depth level by level, so that the depth of the caller's stack doesn't affect what is read."""
    level = _containers([value])
    for _ in range(MAX_JSON_DEPTH):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return
    raise _too_deep()


def _containers(values: Any) -> list[Any]:
    """The objects and arrays directly in an object or array."""
    within = values.values() if isinstance(values, dict) else values
    return [value for value in within if isinstance(value, dict | list)]


def _too_deep() -> Unstrict:
    return Unstrict(f"it is nested deeper than {MAX_JSON_DEPTH} levels; make it flatter")
