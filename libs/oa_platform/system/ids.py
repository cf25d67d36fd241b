"""New ids, of the form in `oa_base.ids`: those of one kind sort by their creation."""

from __future__ import annotations

import re

from ulid import ULID

_PREFIX = re.compile(r"[a-z]{3}")


def new_id(prefix: str) -> str:
    """A new id, for example `new_id("run")`; `prefix` has three small letters."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no id prefix")
    return f"{prefix}_{ULID()}"
