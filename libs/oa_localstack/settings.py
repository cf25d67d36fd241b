"""Settings of a local stack, except its ports (`oa_platform.config.ports`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from oa_platform.config.loading import load, setting
from oa_platform.config.parsers import integer, number, path, text


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """A PostgreSQL of its own and the four services as supervised processes."""

    home: Path = setting("OA_HOME", path(), Path(".oa"), doc="Folder of the stack's data, secrets and logs.")
    postgres_user: str = setting(
        "OA_POSTGRES_USER", text(64), "nobody", doc="User that runs Postgres when root starts the stack."
    )
    postgres_start_timeout_s: float = setting(
        "OA_POSTGRES_START_TIMEOUT_S",
        number(0.1, 3600),
        60.0,
        doc="Maximum time for Postgres to start, including the replay of its log after a crash.",
    )
    ready_timeout_s: float = setting(
        "OA_READY_TIMEOUT_S", number(0.1, 3600), 45.0, doc="Maximum time until every service is ready."
    )
    stop_timeout_s: float = setting(
        "OA_STOP_TIMEOUT_S", number(0.1, 3600), 15.0, doc="Maximum time from SIGTERM until a service is killed."
    )
    max_log_bytes: int = setting(
        "OA_STACK_MAX_LOG_BYTES",
        integer(1024, 1 << 40),
        16 * 1024 * 1024,
        doc="Maximum size of the log of each process. A larger one moves to a second file (`.log.1`), in the place of "
        "what is there.",
    )
    restart_attempts: int = setting(
        "OA_RESTART_ATTEMPTS", integer(0, 1000), 6, doc="Maximum number of consecutive restarts of a process that died."
    )


def load_settings(env: Mapping[str, str]) -> StackSettings:
    """Read the settings; raises Refusal(invalid_setting) naming every wrong variable."""
    return load(StackSettings, env)
