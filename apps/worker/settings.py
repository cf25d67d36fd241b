"""What can be set about a worker that runs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oa_platform.config.loading import group, setting
from oa_platform.config.parsers import Secret, http_url, integer, path, proxy_url, secret_text, text
from oa_platform.config.shared import LogSettings

MAX_SLOTS = 1000
"""The contract's bound of a worker's runs at a time."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """A worker."""

    log: LogSettings = group(LogSettings)
    control_url: str = setting("OA_CONTROL_URL", http_url(), doc="The public edge of control.")
    api_key: Secret = setting(
        "OA_API_KEY", secret_text("an API key, oak_…"), doc="The key of the worker's service account."
    )
    name: str = setting("OA_WORKER_NAME", text(100), "", doc="Name for people; by default the host's.")
    slots: int = setting("OA_WORKER_SLOTS", integer(1, MAX_SLOTS), 4, doc="Maximum number of runs at a time.")
    drain_s: int = setting(
        "OA_WORKER_DRAIN_S",
        integer(0, 99_999),
        30,
        doc="Time for the runs at hand when the worker is told to stop; then other workers take them over.",
    )
    proxy: Secret | None = setting("OA_PROXY", proxy_url(), None, doc="HTTP proxy on the way to the site.")
    ca_file: Path | None = setting(
        "OA_CA_FILE",
        path(),
        None,
        doc="Certificates of authorities (PEM) that are trusted besides the public ones: for a site with its own.",
    )
