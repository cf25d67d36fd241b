"""Checks of arguments that programs pass: one of the wrong kind is refused where it was passed, by its name.

Messages would refuse it, too, but in their own words: "bad argument type for built-in operation" names no field.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import SupportsIndex

from oa_base.refusal import Refusal

MAX_COUNT = 2**64 - 1
"""Maximum count that a message can hold."""
MAX_SMALL_COUNT = 2**32 - 1
"""Maximum count in fields for small counts."""


def check_text(text: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is not a text or holds half a character."""
    if not isinstance(text, str):
        raise Refusal("invalid_value", f"{field} must be a text; give a str", field=field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("invalid_value", f"{field} holds half a character; give whole ones", field=field) from None


def check_text_arguments(**texts: object) -> None:
    """Check each of several arguments as `check_text` does, by name."""
    for field, text in texts.items():
        check_text(text, field)


def check_texts(texts: object, field: str) -> None:
    """Check each of several texts. A single text is refused, too: it would count as one text per character."""
    if isinstance(texts, str) or not isinstance(texts, Collection):
        raise Refusal("invalid_value", f"{field} must be several texts; give a list or tuple of them", field=field)
    for index, text in enumerate(texts):
        check_text(text, f"{field}[{index}]")


def check_named_texts(texts: object, field: str) -> None:
    """Check each name and its text."""
    if not isinstance(texts, Mapping):
        raise Refusal("invalid_value", f"{field} must have names and values; give a mapping", field=field)
    for name, text in texts.items():
        check_text(name, field)
        check_text(text, f"{field}[{name}]")


def check_whole(number: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is not a whole number that a message can hold."""
    check_between(number, field, -MAX_SMALL_COUNT // 2, MAX_SMALL_COUNT // 2)


def check_count(number: object, field: str, maximum: int = MAX_COUNT) -> None:
    """Raise Refusal `invalid_value` for a value that is not a count of at most `maximum`."""
    check_between(number, field, 0, maximum)


def check_between(number: object, field: str, minimum: int, maximum: int) -> None:
    """Raise Refusal `invalid_value` for a value that is not a whole number from `minimum` to `maximum`."""
    if not isinstance(number, SupportsIndex):
        raise Refusal("invalid_value", f"{field} must be a whole number; give an int", field=field)
    if not minimum <= operator.index(number) <= maximum:
        message = f"{field} must be from {minimum} to {maximum}; give another number"
        raise Refusal("invalid_value", message, field=field)


def check_duration(duration: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is not a timedelta: a plain number doesn't tell its unit."""
    if not isinstance(duration, timedelta):
        raise Refusal("invalid_value", f"{field} must be a length of time; give a timedelta", field=field)


def check_moment(moment: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is not a datetime with a time zone."""
    if not isinstance(moment, datetime):
        raise Refusal("invalid_value", f"{field} must be a time; give a datetime", field=field)
    if moment.tzinfo is None:
        text = "a time without a zone means another one on each machine; give it one, for example UTC"
        raise Refusal("invalid_value", text, field=field)


def check_kind(value: object, kind: type, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is not a `kind`, one of our classes."""
    if not isinstance(value, kind):
        raise Refusal("invalid_value", f"{field} must be of class {kind.__name__}; give one", field=field)


def check_flag(flag: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that is neither True nor False."""
    if not isinstance(flag, bool):
        raise Refusal("invalid_value", f"{field} must be True or False; give one of them", field=field)


def check_function(function: object, field: str) -> None:
    """Raise Refusal `invalid_value` for a value that can't be called, such as the result of a call."""
    if not callable(function):
        message = f"{field} must be one that can be called; give the function itself, and not what it returns"
        raise Refusal("invalid_value", message, field=field)
