"""Settings of the archive and of its artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oa_platform.config.loading import Problem, setting
from oa_platform.config.parsers import integer
from services.runtime.archive.limits import ArchiveLimits, ArtifactLimits
from services.runtime.config_parsers import archive_url, retention_classes
from services.runtime.retention.domain import RetentionClasses
from services.runtime.whole_log.limits import ArtifactCacheLimits

_ARTIFACTS, _ARTIFACT_CACHE, _ARCHIVE = ArtifactLimits(), ArtifactCacheLimits(), ArchiveLimits()


@dataclass(frozen=True, kw_only=True)
class ArtifactSettings:
    """How replay artifacts are made."""

    max_bytes: int = setting(
        "OA_REPLAY_MAX_BYTES",
        integer(1024, 1 << 50),
        _ARTIFACTS.max_bytes,
        doc="Maximum size of an artifact. A run with a larger one has no artifact and is not archived.",
    )
    builds: int = setting(
        "OA_REPLAY_BUILDS",
        integer(1, 100),
        _ARTIFACTS.builds,
        doc="Maximum number of artifacts that are built concurrently. Others wait.",
    )

    def limits(self) -> ArtifactLimits:
        """The settings as `ArtifactLimits`."""
        return ArtifactLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings:
    """When finished runs leave the log, and where they go."""

    url: str = setting(
        "OA_ARCHIVE_URL",
        archive_url(),
        _ARCHIVE.url,
        doc="URL of the archive. A bucket's credentials, region, endpoint and proxy (AWS_PROXY_URL) come from the "
        "usual AWS_ variables.",
    )
    classes: RetentionClasses = setting(
        "OA_RETENTION_CLASSES",
        retention_classes(),
        _ARCHIVE.classes,
        doc="Retention classes, each with the age at which the events of its finished runs move from the log to the "
        "archive. `default` is the class of runs that name none. `keep` is never.",
    )
    poll_ms: int = setting(
        "OA_ARCHIVE_POLL_MS",
        integer(10, 3_600_000),
        _ARCHIVE.poll_ms,
        doc="Interval between checks for runs to archive.",
    )
    page: int = setting(
        "OA_ARCHIVE_PAGE", integer(1, 10_000), _ARCHIVE.page, doc="Maximum number of runs that one check finds."
    )
    retry_s: int = setting(
        "OA_ARCHIVE_RETRY_S",
        integer(0, 86_400),
        _ARCHIVE.retry_s,
        doc="Pause before the service retries a run that could not be archived.",
    )
    lease_ms: int = setting(
        "OA_ARCHIVE_LEASE_MS",
        integer(100, 3_600_000),
        _ARCHIVE.lease_ms,
        doc="Time without a sign of life after which another replica takes over archiving.",
    )
    prune_timeout_ms: int = setting(
        "OA_ARCHIVE_PRUNE_TIMEOUT_MS",
        integer(100, 3_600_000),
        _ARCHIVE.prune_timeout_ms,
        doc="Maximum time to remove one run's events from the log.",
    )
    zstd_level: int = setting(
        "OA_ARCHIVE_ZSTD_LEVEL", integer(1, 19), _ARCHIVE.zstd_level, doc="Compression level of zstd."
    )

    def problems(self) -> Iterator[Problem]:
        """Report that runs leave the log and there is no archive for them."""
        if self.classes.ages and not self.url:
            text = "OA_RETENTION_CLASSES has ages, and nothing is pruned that is not kept elsewhere; set OA_ARCHIVE_URL"
            yield "OA_ARCHIVE_URL", text

    def limits(self) -> ArchiveLimits:
        """The settings as `ArchiveLimits`."""
        return ArchiveLimits(**vars(self))


@dataclass(frozen=True, kw_only=True)
class ArtifactCacheSettings:
    """How much of the archive is cached for readers of the log who are below its floor."""

    artifacts: int = setting(
        "OA_ARTIFACT_CACHE_ARTIFACTS",
        integer(1, 100_000),
        _ARTIFACT_CACHE.artifacts,
        doc="Maximum number of archived runs' artifacts that are kept open, one file each. If more runs than this "
        "interleave in the log, artifacts are fetched repeatedly.",
    )
    bytes: int = setting(
        "OA_ARTIFACT_CACHE_BYTES",
        integer(0, 1 << 50),
        _ARTIFACT_CACHE.bytes,
        doc="Maximum size of the archived runs' artifacts that are kept open on the temporary disk. An artifact in use "
        "stays regardless of its size.",
    )
    fetches: int = setting(
        "OA_ARTIFACT_CACHE_FETCHES",
        integer(1, 1000),
        _ARTIFACT_CACHE.fetches,
        doc="Maximum number of artifacts that are fetched concurrently.",
    )

    def limits(self) -> ArtifactCacheLimits:
        """The settings as `ArtifactCacheLimits`."""
        return ArtifactCacheLimits(**vars(self))
