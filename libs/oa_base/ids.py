"""The form of an id: a prefix of its kind and a ULID ("run_01JD8V…"). `oa_platform.system.ids` makes new ones."""

from __future__ import annotations

import re

# 26 characters of Crockford base 32; the first holds only 3 of its 5 bits (ULID specification).
ULID_PATTERN = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
_ULID = re.compile(ULID_PATTERN)


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the form of an id with this prefix, for example "run"."""
    return text.startswith(f"{prefix}_") and _ULID.fullmatch(text[len(prefix) + 1 :]) is not None
