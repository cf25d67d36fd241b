"""A worker in the hands of a program that uses it more than once, or for too much."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from oa_wire.rules import check_rules
from oa_worker.agents import Run, Worker
from oa_worker.agents.limits import MAX_AGENTS, AgentLimits
from oa_worker.agents.tests.rig import Answer, Ask, answers, asked
from oa_worker.tests.fake_runtime import RUN, FakeTokens
from oa_worker.tests.scripts import QUICK
from openagents.runtime.v1.worker_service_pb2 import WorkerHello


async def test_a_worker_that_was_drained_works_again() -> None:
    for drained_before in (False, True):
        runtime = asked()
        async with runtime.running(), asyncio.timeout(PATIENCE_S):
            worker = Worker("t", FakeTokens(runtime), limits=QUICK)
            worker.agent("a", input=Ask, output=Answer)(answers)
            if drained_before:
                worker.drain()
                await worker.serve()
                assert not runtime.logs[RUN].finished
            serving = asyncio.create_task(worker.serve())
            await runtime.until(lambda log=runtime.logs[RUN]: log.finished)  # type: ignore[misc]
            worker.drain()
            await serving


async def test_a_worker_works_once_at_a_time() -> None:
    runtime = asked()
    async with runtime.running(), asyncio.timeout(PATIENCE_S):
        worker = Worker("t", FakeTokens(runtime), limits=QUICK)
        worker.agent("a", input=Ask, output=Answer)(answers)
        serving = asyncio.create_task(worker.serve())
        await runtime.until(lambda: runtime.logs[RUN].finished)
        with pytest.raises(RuntimeError, match="at work already"):
            await worker.serve()
        worker.drain()
        await serving


async def swallows(run: Run[Ask]) -> Answer:
    """Never ends, whoever asks for it."""
    await run.emit("test.begun", {})
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def test_a_function_that_swallows_its_cancel_keeps_no_worker_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = asked()
    async with runtime.running(), asyncio.timeout(PATIENCE_S):
        limits = replace(QUICK, drain_timeout_ms=1)
        worker = Worker("t", FakeTokens(runtime), limits=limits, agent_limits=AgentLimits(stop_timeout_ms=1))
        worker.agent("a", input=Ask, output=Answer)(swallows)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            worker.run()
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=work, daemon=True).start()
        await runtime.until(lambda: bool(runtime.logs[RUN].events))
        worker.drain()
        await ended.wait()
    assert f"agent a {RUN} ignores that the worker ends, and is left behind" in caplog.messages


def test_a_worker_has_as_many_agents_as_the_contract_allows() -> None:
    worker = Worker("t", FakeTokens(asked()))
    for number in range(MAX_AGENTS):
        worker.agent(f"a{number}", input=Ask, output=Answer)(answers)
    hello = WorkerHello(worker_id="wrk_00000000000000000000000000", name="t", max_concurrent_runs=1)
    hello.adapters.extend(worker.agents)
    hello.agents.extend(adapter.agent for adapter in worker.agents.values())
    check_rules(hello)
    with pytest.raises(Refusal) as refused:
        worker.agent("one-more", input=Ask, output=Answer)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "name")
    hello.adapters.append("one-more")
    with pytest.raises(Refusal, match="adapters"):
        check_rules(hello)
