"""How a worker works: settings of a worker that runs by itself, and of `oa worker start`."""

from __future__ import annotations

from dataclasses import dataclass

from oa_platform.config.loading import setting
from oa_platform.config.parsers import integer, text, variables

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
