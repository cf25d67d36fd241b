"""What programs hand over: refused where it was given when it is of another kind, with the name of the argument.

Messages would refuse it, too, but in their words: "bad argument type for built-in operation" names no field.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import SupportsIndex, cast

from oa_base.refusal import Refusal

MAX_COUNT = 2**64 - 1
"""Largest number of things that a message can tell of."""


def check_text(text: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no text, or has half of a character."""
    if not isinstance(text, str):
        raise Refusal("invalid_value", f"{field} must be a text; give a str", field=field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal("invalid_value", f"{field} holds half a character; give whole ones", field=field) from None


def check_text_arguments(**texts: object) -> None:
    """The same for each of several arguments, by their names."""
    for field, text in texts.items():
        check_text(text, field)


def check_texts(texts: object, field: str) -> None:
    """The same for each of several. One text alone is refused, too: it would be as many as it has characters."""
    if isinstance(texts, str) or not isinstance(texts, Collection):
        raise Refusal("invalid_value", f"{field} must be several texts; give a list or tuple of them", field=field)
    for index, text in enumerate(texts):
        check_text(text, f"{field}[{index}]")


def check_named_texts(texts: Mapping[str, object], field: str) -> None:
    """The same for each name and its text."""
    for name, text in texts.items():
        check_text(name, field)
        check_text(text, f"{field}[{name}]")


def check_whole(number: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no whole number."""
    if not isinstance(number, SupportsIndex):
        raise Refusal("invalid_value", f"{field} must be a whole number; give an int", field=field)


def check_count(number: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no number of things."""
    check_whole(number, field)
    if not 0 <= operator.index(cast("SupportsIndex", number)) <= MAX_COUNT:
        message = f"{field} must be from 0 to {MAX_COUNT}; count in whole things"
        raise Refusal("invalid_value", message, field=field)


def check_duration(duration: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no timedelta: of a number nobody knows what it counts."""
    if not isinstance(duration, timedelta):
        raise Refusal("invalid_value", f"{field} must be a length of time; give a timedelta", field=field)


def check_moment(moment: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is no datetime."""
    if not isinstance(moment, datetime):
        raise Refusal("invalid_value", f"{field} must be a time; give a datetime", field=field)


def check_flag(flag: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what is neither True nor False."""
    if not isinstance(flag, bool):
        raise Refusal("invalid_value", f"{field} must be True or False; give one of them", field=field)


def check_function(function: object, field: str) -> None:
    """Raises Refusal `invalid_value` for what can't be called: a call that was made already, for example."""
    if not callable(function):
        message = f"{field} must be one that can be called; give the function itself, and not what it returns"
        raise Refusal("invalid_value", message, field=field)
