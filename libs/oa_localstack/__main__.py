"""`python -m oa_localstack clean`: remove the stack of OA_HOME or of this folder, which must be down.

For `make clean`. A stack of a folder above is never removed: it is not this checkout's.
"""

from __future__ import annotations

import io
import os
import sys

from oa_base.refusal import Refusal
from oa_base.visible import LAYOUT, visible
from oa_localstack.lifecycle import remove
from oa_localstack.settings import OWN_HOME, load_settings

_USAGE = "usage: python -m oa_localstack clean"


def main(arguments: list[str]) -> int:
    """Run the command. Returns the exit status, 0: done; 1: refused; 2: wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may have characters that the locale lacks
    if arguments != ["clean"]:
        _say(_USAGE)
        return 2
    try:
        home = load_settings({**os.environ, "OA_HOME": os.environ.get("OA_HOME") or str(OWN_HOME)}).home.absolute()
        _say(f"removed {home}" if remove(home) else f"there is no {home}")
    except Refusal as refusal:
        _say(f"{refusal.reason}: {refusal.message}")
        return 1
    except OSError as error:
        _say(f"the stack can't be removed: {error.strerror} ({error.filename}); remove it as the user who started it")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{visible(text, LAYOUT)}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
