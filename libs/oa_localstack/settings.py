"""Settings of a local stack, except its ports (`oa_platform.config.ports`), and where it is if nobody names it: in the
nearest folder `.oa`, from the working folder upwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from oa_platform.config.loading import DefaultFrom, load, setting
from oa_platform.config.parsers import integer, number, path, text

OWN_HOME = Path(".oa")
"""The folder of a stack that belongs to the working folder."""


def nearest_home() -> Path:
    """Return the nearest folder of a stack, or the one that a new stack would get, which is in the working folder.

    Those above the working folder count only if they are the caller's: anybody can make one in /tmp, and everybody's
    commands below /tmp would go to the site that it names.
    """
    try:
        above = Path.cwd().parents
    except FileNotFoundError:  # the working folder was removed: refused by whoever needs it
        return OWN_HOME
    if OWN_HOME.is_dir():
        return OWN_HOME
    return next((home for folder in above if _is_ours(home := folder / OWN_HOME)), OWN_HOME)


def _is_ours(home: Path) -> bool:
    try:
        return home.is_dir() and home.stat().st_uid == os.geteuid()
    except OSError:  # a folder above that we may not search
        return False


NEAREST_HOME = DefaultFrom(
    lambda _service, _env: nearest_home(), "`.oa` in the working folder, or in the nearest folder above that has one"
)
"""The default of OA_HOME."""


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """A PostgreSQL of its own and the four services as supervised processes."""

    home: Path = setting("OA_HOME", path(), NEAREST_HOME, doc="Folder of the stack's data, secrets and logs.")
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
