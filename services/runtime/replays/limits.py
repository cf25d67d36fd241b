"""Limits of replays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReplayLimits:
    """How replay artifacts are handed out."""

    page_bytes: int = 1 << 20
    """Bytes of an artifact in one answer."""
    cache_bytes: int = 256 << 20
    """Bytes on the temporary disk of artifacts that were read last; one is kept whatever its size."""
