"""The entry point of the program `oa`.

Its code is in the packages `apps` and `services`. A wheel has them in the folder `_programs`, which is on the path of
`oa` and of the processes that it starts, and on no other path: a user's own package `apps` is not affected.
"""

from oa_platform.process import interrupts

interrupts.ends_at_once()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

_PROGRAMS = Path(__file__).with_name("_programs")
_REFUSED = 70
"""The exit code of a command that was refused."""
_OURS = ("oa_", "openagents", "apps", "services")
"""How the names of our own modules begin: if one of these is missing, no extra brings it."""


def main() -> None:
    """Run `oa` and end the process with its exit code."""
    if not _is_ours():
        _refuse(
            "another distribution has replaced the package openagents; "
            "install openagents-runtime into an environment of its own"
        )
    if _PROGRAMS.is_dir():
        sys.path.insert(0, str(_PROGRAMS))
    try:
        from apps.cli.__main__ import main as oa

        oa()
    except ModuleNotFoundError as missing:  # also while an error is written, which needs modules, too
        if (missing.name or "").startswith(_OURS):
            raise
        _refuse(f"the module {missing.name} is not installed; run pip install 'openagents-runtime[cli]'")


def _refuse(message: str) -> NoReturn:
    """Say in one line what is wrong and what to do, and end. Nothing but the standard library may be here."""
    sys.stderr.write(f"oa: {message}\n")
    sys.exit(_REFUSED)


def _is_ours() -> bool:
    try:
        from openagents import DISTRIBUTION
    except ImportError:
        return False
    return DISTRIBUTION == "openagents-runtime"


if __name__ == "__main__":
    main()
