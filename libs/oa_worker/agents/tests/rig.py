"""One agent on a worker at an authority for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import AgentLimits, Worker
from oa_worker.agents.adapter import Handler
from oa_worker.tests.fake_runtime import RUN, FakeRuntime, FakeTokens
from oa_worker.tests.scripts import QUICK
from openagents.runtime.v1.event_pb2 import AgentSpec, EventBody, RunFinished, RunSpec

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass
class Ask:
    """What an agent of the tests takes."""

    question: str
    most: int = 3


@dataclass
class Answer:
    """What it gives."""

    text: str


def asked(text: str = '{"question": "why"}') -> FakeRuntime:
    """An authority with one run for the agent `a`."""
    return FakeRuntime({RUN: RunSpec(adapter="a", agent=AgentSpec(input_json=text))}, None, 100_000)


@asynccontextmanager
async def working(
    runtime: FakeRuntime,
    handler: Handler[In, Out],
    input: type[In],
    output: type[Out],
    limits: AgentLimits = AgentLimits(),  # noqa: B008 - frozen
) -> AsyncIterator[Worker]:
    """The handler as the agent `a`, on a worker that is drained at the end."""
    async with runtime.running():
        worker = Worker("t", FakeTokens(runtime), limits=QUICK, agent_limits=limits)
        worker.agent("a", input=input, output=output)(handler)
        serving = asyncio.create_task(worker.serve())
        try:
            yield worker
        finally:
            worker.drain()
            async with asyncio.timeout(PATIENCE_S):
                await serving


async def events_of(
    handler: Handler[In, Out],
    text: str = '{"question": "why"}',
    input: Any = Ask,
    output: Any = Answer,
    limits: AgentLimits = AgentLimits(),  # noqa: B008 - frozen
) -> list[EventBody]:
    """All events of a run of the handler, from its first to its finish."""
    runtime = asked(text)
    async with working(runtime, handler, input, output, limits):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    return runtime.logs[RUN].events


async def finish_of(handler: Handler[In, Out], text: str = '{"question": "why"}', **more: Any) -> RunFinished:
    """How a run of the handler ends."""
    return (await events_of(handler, text, **more))[-1].run_finished


async def answers(run: Any) -> Answer:
    """An agent that says nothing."""
    return Answer("because")
