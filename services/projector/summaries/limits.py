"""The size of a page of summaries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """Numbers of summaries: in a page that was requested without a size, and in the largest page."""

    default_size: int = 50
    max_size: int = 200
