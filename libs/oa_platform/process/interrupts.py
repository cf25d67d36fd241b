"""Ctrl-C while `oa` loads, and while it ends: one line and status 130, not a traceback out of some import.

While a command is at work, Ctrl-C is an exception, as everywhere in Python: there may be something to put in order.
Light, because it comes before everything else.
"""

import contextlib
import os
import signal
import sys

STATUS = 130
PLAIN = b"interrupted\n"
AS_JSON = b'{"error":{"reason":"interrupted","message":"interrupted"}}\n'


def ends_at_once() -> None:
    """From now on Ctrl-C ends the process, unless it is ignored or somebody else's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def is_an_exception() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, unless it is ignored or somebody else's."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end(*_: object) -> None:
    """Say so, and end the process. Nothing is lost: `oa` writes what it says at once."""
    own = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    with contextlib.suppress(OSError):
        os.write(2, AS_JSON if "--json" in own else PLAIN)
    os._exit(STATUS)
