"""Plain values in proto3 JSON, with one form each.

protobuf's own parser takes the texts that Python's `int` and `float` take (`6_0`, `+60`, digits of other scripts),
reads booleans as numbers, and a text beyond the largest number as infinity. Other readers of the same contract refuse
them, so they are refused here, with a ValueError that says what the value must be. Whether a value has the field's type
and fits into it otherwise is left to the parser.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from oa_wire.strict.text import read_any_base64

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_LOWEST_OF_ENUM, _HIGHEST_OF_ENUM = -(2**31), 2**31 - 1
_ENUM_CHARS = len(str(_LOWEST_OF_ENUM))
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
_INTEGERS = frozenset(
    {
        *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
        *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
    }
)
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})
_TIMES = {
    "google.protobuf.Timestamp": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
        r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    ),
    "google.protobuf.Duration": re.compile(r"-?[0-9]+(?:\.[0-9]{1,9})?s"),
}
_WORDS = {
    "google.protobuf.Timestamp": "a time like 2026-01-31T08:00:00Z",
    "google.protobuf.Duration": "a time in seconds like 1.5s",
}


def check_scalar(value: Any, field: FieldDescriptor) -> None:
    """Check a value of a field that holds no messages. Raises ValueError."""
    if field.cpp_type in _INTEGERS:
        _check_number(value, "a whole number")
    elif field.cpp_type in _FLOATS:
        _check_float(value, field)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        _check_enum(value, field)
    elif field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
        try:
            read_any_base64(value)
        except ValueError:
            raise ValueError("base64") from None


def check_key(key: str, field: FieldDescriptor) -> None:
    """Check a key of a map. A number has one form as a key, so that none stands twice in a map. Raises ValueError."""
    if field.cpp_type in _INTEGERS and not _INTEGER.fullmatch(key):
        raise ValueError("an object whose keys are whole numbers")


def check_time(value: Any, message: str) -> None:
    """Check a value of the message with this full name, if it is a Timestamp or Duration. Raises ValueError."""
    form = _TIMES.get(message)
    if form is not None and isinstance(value, str) and not form.fullmatch(value):
        raise ValueError(_WORDS[message])


def _check_number(value: Any, what: str) -> None:
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        raise ValueError(what)


def _check_float(value: Any, field: FieldDescriptor) -> None:
    if isinstance(value, str) and value in _NOT_FINITE:
        return
    _check_number(value, "a number")
    if not isinstance(value, str | int):
        return
    try:
        number = float(value)
        if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            struct.pack("<f", number)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise ValueError("a number that its type can hold")


def _check_enum(value: Any, field: FieldDescriptor) -> None:
    known = field.enum_type.values_by_name if field.enum_type else ()
    if not isinstance(value, str | int | float) or (isinstance(value, str) and value in known):
        return
    # The parser takes a number beyond 32 bits modulo 2**32, that is, as another value of the enum.
    number = None if isinstance(value, bool) else _whole(value)
    if number is None or not _LOWEST_OF_ENUM <= number <= _HIGHEST_OF_ENUM:
        raise ValueError("one of its names")


def _whole(value: str | float) -> int | None:
    """The whole number that this is, or None."""
    if isinstance(value, str):
        return int(value) if len(value) <= _ENUM_CHARS and _INTEGER.fullmatch(value) else None
    if isinstance(value, int):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else None
