"""Limits of the archive."""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime.retention.domain import KEEP_ALL, RetentionClasses


@dataclass(frozen=True, kw_only=True)
class ArtifactLimits:
    """How replay artifacts are made."""

    max_bytes: int = 4 << 30
    """Maximum bytes of an artifact; events of a run with a larger one are neither handed out as one nor archived."""
    builds: int = 2
    """Maximum number of artifacts made at a time; others wait."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """When finished runs leave the log, and where they go."""

    url: str = ""
    """Where artifacts are kept: a folder, or a bucket with a prefix. Empty: nowhere."""
    classes: RetentionClasses = KEEP_ALL
    """Age at which the events of a finished run move from the log to the archive, by retention class."""
    poll_ms: int = 10_000
    """Pause between searches for runs."""
    page: int = 100
    """Maximum number of runs in one search."""
    retry_s: int = 300
    """Pause before a run that could not be archived is tried again."""
    lease_ms: int = 60_000
    """How long the replica that archives keeps its lease without a sign of life."""
    prune_timeout_ms: int = 120_000
    """Maximum time for the removal of one run's events from the log."""
    zstd_level: int = 9
    """Compression level of zstd."""
