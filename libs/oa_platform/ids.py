"""Ids: a prefix that names the kind, and a ULID ("run_01JD8V…"), so that ids of one kind sort by their creation."""

from __future__ import annotations

import re

from ulid import ULID

_PREFIX = re.compile(r"[a-z]{3}")
# Crockford's base 32, as in the patterns of proto/.
_BODY = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def new_id(prefix: str) -> str:
    """A new id, for example `new_id("run")`; `prefix` has three small letters."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no id prefix")
    return f"{prefix}_{ULID()}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the form of an id with this prefix."""
    return text.startswith(f"{prefix}_") and _BODY.fullmatch(text[len(prefix) + 1 :]) is not None
