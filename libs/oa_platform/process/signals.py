"""SIGINT, SIGTERM and SIGHUP mean the same in every program of ours that runs until it is told to stop.

The first of them begins the drain, whichever it is. The second one, whichever it is, ends the process at once, with
status 130 and without output; if there is a wait before the drain, it only ends that wait. SIGHUP stays ignored if
`nohup` made the process ignore it from the start.

    with stop_signals(worker.drain):
        await worker.run()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_SECOND_SIGNAL = 130


@contextlib.contextmanager
def stop_signals(
    first: Callable[[signal.Signals], None],
    second: Callable[[signal.Signals], None] = lambda number: None,
    *,
    skip: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Call `first` at the first signal, and `second` (for a last message) at the second one, before the process ends.

    `skip` is called first at every later signal: True says that there was a wait, which the signal has ended instead.

    Use it in the main thread, around everything that a signal is to end in order. After a first signal, the next one
    also ends what comes after the block (the interpreter's own end).
    """
    loop = asyncio.get_running_loop()
    told = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal told
        if number == signal.SIGHUP:
            _leave_terminal()
        if told and skip():
            return
        if told:
            with contextlib.suppress(Exception):
                second(number)
            end_at_once()
        told = True
        first(number)

    heard = [number for number in STOP_SIGNALS if not _ignored_by_nohup(number)]
    for number in heard:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
            if told:
                signal.signal(number, lambda *_: end_at_once())


def end_at_once() -> NoReturn:
    """End the process at once, as the second signal does."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_SECOND_SIGNAL)


def _ignored_by_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _leave_terminal() -> None:
    """Leave a terminal that is gone or about to go: output to it must not fail and so break the drain."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
    except OSError:  # no descriptor is left; the signal is heard all the same
        return
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode):  # one that is gone no longer says that it is a terminal
                os.dup2(nowhere, fd)
    os.close(nowhere)
