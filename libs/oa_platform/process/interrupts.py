"""Handles Ctrl-C while `oa` loads, and while it ends: with one line and status 130, not a traceback from some import.

While a command is at work, Ctrl-C is an exception, as everywhere in Python, because there may be something to clean up.
This module is light, because it is loaded before everything else: until it is, Python's own handler shows a traceback.
"""

import os
import signal
import sys

STATUS = 130
PLAIN = b"interrupted\n"
AS_JSON = (
    b'{"error":{"reason":"interrupted","message":"interrupted","field":"","metadata":{},"retryAfterMs":0,'
    b'"action":"give_up"}}\n'
)


def ends_at_once() -> None:
    """Let Ctrl-C end the process from now on, unless it is ignored or has another handler."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def is_an_exception() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, unless it is ignored or has another handler."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end(*_: object) -> None:
    """Report the interruption, and end the process. Nothing is lost, because `oa` writes its output at once."""
    own = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    try:  # noqa: SIM105 - `contextlib` takes longer to load than the rest of this module
        os.write(2, AS_JSON if "--json" in own else PLAIN)
    except OSError:
        pass
    os._exit(STATUS)
