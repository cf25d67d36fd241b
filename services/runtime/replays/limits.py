"""Limits of replays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReplayLimits:
    """How replay artifacts are handed out."""

    page_bytes: int = 1 << 20
    """Maximum bytes of an artifact in one answer."""
    cache_bytes: int = 256 << 20
    """Maximum bytes on the temporary disk of the artifacts read last; one is kept regardless of its size."""
    cache_artifacts: int = 256
    """Maximum number of these artifacts. Each is an open file."""
