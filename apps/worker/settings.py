"""Settings of a worker that runs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oa_platform.config.loading import group, setting
from oa_platform.config.parsers import Secret, http_url, integer, path, proxy_url, secret_text, text, variables
from oa_platform.config.shared import LogSettings

MAX_SLOTS = 1000
"""The contract's limit on a worker's runs at a time."""


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """How a worker works, by itself and as `oa worker start`."""

    name: str = setting("OA_WORKER_NAME", text(100), "", doc="Display name of a worker. Defaults to the host's name.")
    slots: int = setting("OA_WORKER_SLOTS", integer(1, MAX_SLOTS), 4, doc="Maximum number of concurrent runs.")
    drain_s: int = setting(
        "OA_WORKER_DRAIN_S",
        integer(0, 99_999),
        30,
        doc="Time that current runs get to finish when a worker is told to stop. After it other workers take them "
        "over.",
    )
    exec_env: tuple[str, ...] = setting(
        "OA_EXEC_ENV",
        variables(never="OA_"),
        (),
        doc="Environment variables that a command inherits from its worker in addition to the usual ones: names, "
        "or `PREFIX_*`.",
    )


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
