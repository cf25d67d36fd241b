"""How long a page of summaries is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """In summaries: a page that was asked for without a size, and the longest one."""

    default_size: int = 50
    max_size: int = 200
