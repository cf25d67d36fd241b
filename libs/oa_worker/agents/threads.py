"""Threads that keep no process from ending.

Python waits at a process's end for the threads of a `ThreadPoolExecutor`, however long they take. A function that
blocks for good in one of them would keep a worker alive whose runs other workers have taken over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

R = TypeVar("R")
P = ParamSpec("P")


class Threads(ThreadPoolExecutor):
    """At most `max_threads` threads, started as they are needed; what comes when all of them are at work waits for one.

    It is a `ThreadPoolExecutor` because asyncio takes no other one as its default. Nothing of that one's work is used.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        super().__init__(max_threads, name)
        self._name = name
        self._max_threads = max_threads
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        # Calls that are waiting or at work.
        self._open = 0
        self._is_over = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call a function in a thread. Raises RuntimeError after `shutdown`."""
        future: Future[R] = Future()
        with self._lock:
            if self._is_over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._open += 1
            if self._open > self._started and self._started < self._max_threads:
                self._started += 1
                name = f"{self._name}_{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Threads end when they have nothing left to do, and nobody waits for that."""
        with self._lock:
            self._is_over = True
            started = self._started
        for _ in range(started):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            is_wanted, result, error = future.set_running_or_notify_cancel(), None, None
            try:
                result = function() if is_wanted else None
            except BaseException as raised:  # noqa: BLE001 - whoever waits for the result gets it
                error = raised
            # Before anybody knows: whoever then calls again finds this thread free.
            with self._lock:
                self._open -= 1
            if error is not None:
                future.set_exception(error)
            elif is_wanted:
                future.set_result(result)
            del call, future, function, result, error  # nothing is kept until the next call
