"""The entry point of the program `oa`.

Its code is in the packages `apps` and `services`. A wheel has them in the folder `_programs`, which is on the path of
`oa` and of the processes that it starts, and on no other path: a user's own package `apps` is not affected.
"""

from oa_platform.process import interrupts

interrupts.ends_at_once()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

_PROGRAMS = Path(__file__).with_name("_programs")


def main() -> None:
    """Run `oa` and end the process with its exit code."""
    if not _is_ours():
        sys.exit(
            "oa: another distribution has replaced the package openagents; "
            "install openagents-runtime into an environment of its own"
        )
    if _PROGRAMS.is_dir():
        sys.path.insert(0, str(_PROGRAMS))
    from apps.cli.__main__ import main as oa

    oa()


def _is_ours() -> bool:
    try:
        from openagents import DISTRIBUTION
    except ImportError:
        return False
    return DISTRIBUTION == "openagents-runtime"


if __name__ == "__main__":
    main()
