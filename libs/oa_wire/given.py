"""What programs hand over as texts and numbers: refused where it was given, with the name of the argument.

Messages would refuse it, too, but in their words: "bad argument type for built-in operation" names no field.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
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


def check_texts(texts: Iterable[object], field: str) -> None:
    """The same for each of several. One text alone is refused, too: it would be as many as it has characters."""
    if isinstance(texts, str):
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
