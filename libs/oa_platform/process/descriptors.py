"""File descriptors: as many as the process may have, and word when they have run out.

A server that can't accept and a client that can't connect each fail in their own way, and some silently. So this module
asks for a descriptor now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource

import structlog

MANY = 1 << 20
"""More than any of our processes uses. Some programs do work for each descriptor that they may have."""
LOOK_EVERY_S = 1.0
SAY_AGAIN_AFTER_S = 60.0
"""Pause between two log lines while none is available."""
_ADVICE = {
    errno.EMFILE: "This process has as many open as it may. Raise its limit (ulimit -n, LimitNOFILE=), or look for "
    "what holds them: connections of clients that don't end, mostly.",
    errno.ENFILE: "This machine has as many open as it may. Raise fs.file-max, or look for what holds them.",
}
_log = structlog.get_logger(__name__)


def allow_all_descriptors() -> None:
    """Raise this process's limit as far as the system lets it, to `MANY` at most.

    The limit that most systems begin with, 1,024, is for programs that use `select`. A gateway would be full with a
    thousand clients.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(hard, MANY)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # macOS reports no upper limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def watch_descriptors(look_every_s: float = LOOK_EVERY_S) -> None:
    """Check until canceled."""
    loop = asyncio.get_running_loop()
    short, said_at = False, 0.0
    while True:
        number = _missing()
        if number and (not short or loop.time() - said_at >= SAY_AGAIN_AFTER_S):
            said_at = loop.time()
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            _log.error("descriptors_exhausted", error=errno.errorcode[number], limit=limit, advice=_ADVICE[number])
        elif short and not number:
            _log.info("descriptors_free")
        short = bool(number)
        await asyncio.sleep(look_every_s)


def _missing() -> int:
    """The error number when no descriptor is available; 0 when one is."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        return error.errno
    return 0
