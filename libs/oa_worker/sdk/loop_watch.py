"""Logs what holds up the worker's event loop, while it is held up: all runs of the worker stand still with it.

A worker whose loop stands still for too long sends no heartbeat, and is lost. Nothing in the loop could say why.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from types import TracebackType

_log = logging.getLogger("oa_worker")
_CALLS_SHOWN = 12
"""How many of the innermost calls of the loop's thread are named."""


class LoopWatch:
    """Asks the running loop now and then, from a thread of its own, within a block."""

    def __init__(self, blocked_after_ms: int, pause_ms: int = 1_000) -> None:
        """A loop that does not answer for `blocked_after_ms` is held up; `pause_ms`: pause between two questions."""
        self._blocked_after_s = blocked_after_ms / 1000
        self._pause_s = pause_ms / 1000
        self._over = threading.Event()

    def __enter__(self) -> None:
        loop, thread_id = asyncio.get_running_loop(), threading.get_ident()
        threading.Thread(target=self._watch, args=(loop, thread_id), name="loop watch", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._over.set()  # the thread ends by itself: to wait for it here would hold up the loop

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        while not self._over.wait(self._pause_s):
            answered, asked_s = threading.Event(), time.monotonic()
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed
                return
            # A process that was stopped as a whole gets a moment more: its loop answers as soon as this thread goes on.
            if answered.wait(self._blocked_after_s) or answered.wait(self._pause_s) or self._over.is_set():
                continue
            _log.error(
                "the event loop is held up, and all runs of this worker with it; let what computes or blocks run in a "
                "thread (asyncio.to_thread). It is at:\n%s",
                _calls_of(thread_id),
            )
            while not answered.wait(self._pause_s):
                if self._over.is_set():
                    return
            _log.warning("the event loop goes on after %.1f s", time.monotonic() - asked_s)


def _calls_of(thread_id: int) -> str:
    """Return where a thread is: files, lines and functions, without any values."""
    frame = sys._current_frames().get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame)[-_CALLS_SHOWN:])
