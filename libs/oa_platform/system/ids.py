"""New ids, in the form of `oa_base.ids`. Ids of one kind sort by their time of creation."""

from __future__ import annotations

import re

from ulid import ULID

_PREFIX = re.compile(r"[a-z]{3}")


def new_id(prefix: str) -> str:
    """A new id, for example `new_id("run")`; `prefix` has three lower-case letters."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no id prefix")
    return f"{prefix}_{ULID()}"
