"""Settings of a worker that runs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apps.worker.work_settings import WorkSettings
from oa_platform.config.loading import group, setting
from oa_platform.config.parsers import Secret, http_url, path, proxy_url, secret_text
from oa_platform.config.shared import LogSettings


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """A worker."""

    log: LogSettings = group(LogSettings)
    control_url: str = setting("OA_CONTROL_URL", http_url(), doc="URL of control's public edge.")
    api_key: Secret = setting(
        "OA_API_KEY", secret_text("an API key, oak_…"), doc="Key of the worker's service account."
    )
    work: WorkSettings = group(WorkSettings)
    proxy: Secret | None = setting("OA_PROXY", proxy_url(), None, doc="HTTP proxy for the site.")
    ca_file: Path | None = setting(
        "OA_CA_FILE",
        path(),
        None,
        doc="Certificates of authorities (PEM) to trust in addition to the public ones, for sites with an "
        "authority of their own.",
    )
