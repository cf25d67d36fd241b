"""Functions of steps, whatever they are and do: their worker goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import ContextVar

import pytest

from oa_testing.waiting import PATIENCE_S, eventually
from oa_worker.agents.failures import AgentExit
from oa_worker.agents.limits import MAX_STEP_THREADS
from oa_worker.agents.primitives.steps.calling import called

WHERE: ContextVar[str] = ContextVar("WHERE", default="")


class Waiting:
    """A function that blocks its thread until it may go on; `begun` counts those that do."""

    def __init__(self) -> None:
        self.begun = 0
        self._lock = threading.Lock()
        self._may_go = threading.Semaphore(0)

    def __call__(self) -> None:
        with self._lock:
            self.begun += 1
        assert self._may_go.acquire(timeout=2 * PATIENCE_S)

    def let_go(self, count: int) -> None:
        """So many of them go on."""
        self._may_go.release(count)


async def test_what_a_thread_cant_hand_over_is_an_error_like_another() -> None:
    def first() -> int:
        return next(number for number in [1, 2, 3] if number > 3)

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await called(first)


async def test_an_exit_is_a_failure() -> None:
    with pytest.raises(AgentExit, match="end its worker"):
        await called(lambda: sys.exit(3))


async def test_an_interrupt_in_a_thread_is_no_ctrl_c_and_a_failure() -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt(text) if text else KeyboardInterrupt

    for text, said in (("why", "KeyboardInterrupt: why"), ("", "KeyboardInterrupt")):
        with pytest.raises(AgentExit, match=rf"end its worker; .* \({said}\)$") as raised:
            await called(interrupted, text)
        assert isinstance(raised.value.__cause__, KeyboardInterrupt), "the log has its traceback, too"


async def test_a_thread_knows_whose_work_it_does() -> None:
    WHERE.set("here")
    assert await called(WHERE.get) == "here"


async def test_steps_that_wait_in_threads_hold_up_neither_each_other_nor_the_worker() -> None:
    waiting = Waiting()
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_S):
        for _ in range(MAX_STEP_THREADS + 1):
            group.create_task(called(waiting))
        await eventually(lambda: waiting.begun == MAX_STEP_THREADS)
        # What asyncio does in threads of its own, as for the address of who gives the worker its tokens.
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        assert waiting.begun == MAX_STEP_THREADS, "the one more waits"
        waiting.let_go(1)
        await eventually(lambda: waiting.begun == MAX_STEP_THREADS + 1)
        waiting.let_go(MAX_STEP_THREADS)
