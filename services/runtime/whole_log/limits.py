"""Limits of the artifact cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ArtifactCacheLimits:
    """How much of the archive is kept for readers of the log below its floor."""

    artifacts: int = 512
    """Maximum number of artifacts of archived runs kept open, a file each."""
    bytes: int = 1 << 30
    """Maximum bytes of them on the temporary disk; the one that is needed is kept regardless of its size."""
    fetches: int = 8
    """Maximum number of artifacts fetched at a time."""
