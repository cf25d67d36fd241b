"""Limits of the artifact cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ArtifactCacheLimits:
    """What is kept of the archive for readers of the log who are below its floor."""

    artifacts: int = 512
    """Artifacts of archived runs kept open, a file each."""
    bytes: int = 1 << 30
    """Bytes of them on the temporary disk; the one that is needed is there whatever its size."""
    fetches: int = 8
    """Artifacts fetched at a time."""
