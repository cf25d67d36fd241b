"""Where records of the log are made into lines.

A service logs in the middle of its work. Rendering a record there takes five times as long as rendering it after
another one, because its code has left the processor's caches meanwhile. So the records that one turn of the event loop
makes are rendered and written together, at its end.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

Event = MutableMapping[str, Any]
"""A record of the log: its fields by name."""


class Lines:
    """Writes records to `target`, in the order in which they come; `render` makes a record into a line.

    No record waits for longer than a turn of the loop, and none waits for one that says that something is wrong.
    """

    def __init__(self, target: TextIO, render: Callable[[Event], str]) -> None:
        self._target = target
        self._render = render
        self._waiting: list[Event] = []
        # The loop at the end of whose turn they are written. It may have ended before that.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Records come from threads too.
        self._lock = threading.Lock()
        atexit.register(self._write_waiting)

    def add(self, event: Event) -> None:
        """Write a record: at the end of this turn of the event loop, or now where there is no loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.add_at_once(event)
            return
        with self._lock:
            self._waiting.append(event)
            if self._loop is loop:
                return
            self._loop = loop
        loop.call_soon(self._write_waiting)

    def add_at_once(self, event: Event) -> None:
        """Write a record now, behind those that wait."""
        with self._lock:
            self._waiting.append(event)
        self._write_waiting()

    def write(self, line: str) -> None:
        """Write a line that was rendered elsewhere, behind the records that wait."""
        self._write_waiting(line)

    def _write_waiting(self, *more: str) -> None:
        with self._lock:
            waiting, self._waiting, self._loop = self._waiting, [], None
            text = "".join(f"{line}\n" for line in (*map(self._render, waiting), *more))
            # A process goes on when nobody takes its log any more.
            with contextlib.suppress(OSError, ValueError):
                self._target.write(text)
                self._target.flush()
