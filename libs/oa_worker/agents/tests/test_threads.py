"""Threads that keep no process from ending."""

from __future__ import annotations

import asyncio
import threading
import weakref

import pytest

from oa_testing.waiting import eventually
from oa_worker.agents.threads import Threads


async def test_results_and_failures_come_back() -> None:
    threads, loop = Threads(2, "t"), asyncio.get_running_loop()
    assert await loop.run_in_executor(threads, lambda: threading.current_thread().name) == "t_1"
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, lambda: 1 / 0)
    threads.shutdown()


async def test_no_more_are_at_work_than_there_may_be() -> None:
    threads, go, begun = Threads(2, "t"), threading.Event(), list[str]()

    def work() -> None:
        begun.append(threading.current_thread().name)
        go.wait()

    calls = [threads.submit(work) for _ in range(5)]
    await eventually(lambda: len(begun) == 2)
    assert calls[-1].cancel(), "it waits"
    go.set()
    await asyncio.gather(*(asyncio.wrap_future(call) for call in calls[:-1]))
    assert len(begun) == 4
    assert set(begun) == {"t_1", "t_2"}
    threads.shutdown()


async def test_a_thread_that_is_free_is_used_again() -> None:
    threads, loop = Threads(5, "t"), asyncio.get_running_loop()
    for _ in range(3):
        assert await loop.run_in_executor(threads, lambda: threading.current_thread().name) == "t_1"
    threads.shutdown()


async def test_what_was_called_with_is_not_kept() -> None:
    class Thing:
        pass

    threads, thing = Threads(1, "t"), Thing()
    kept = weakref.ref(thing)
    await asyncio.wrap_future(threads.submit(lambda _: None, thing))
    del thing
    await eventually(lambda: kept() is None)
    threads.shutdown()


async def test_threads_end_after_what_was_asked_before() -> None:
    threads, go = Threads(1, "ending"), threading.Event()
    first, second = threads.submit(go.wait), threads.submit(lambda: "done")
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(lambda: None)
    go.set()
    assert await asyncio.wrap_future(first)
    assert await asyncio.wrap_future(second) == "done"
    await eventually(lambda: not any(one.name == "ending_1" for one in threading.enumerate()))
