"""An agent ends in the test kit as it ends on a worker, with the same events; and on a worker it ends in any case."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import Run
from oa_worker.agents.failures import AgentFailure
from oa_worker.agents.testing import play
from oa_worker.agents.tests.rig import Answer, Ask, events_of
from openagents.runtime.v1.event_pb2 import EventBody

HALF = "\ud800"
"""Half a character, as Python reads it from the name of a file that is not UTF-8."""


@pytest.mark.parametrize(
    ("raised", "reason", "message"),
    [
        (Refusal("limit_reached", f"no {HALF}\0; wait"), "limit_reached", "no ?\ufffd; wait"),
        (AgentFailure("timeout", f"no {HALF}\0; wait"), "timeout", "no ?\ufffd; wait"),
        (ValueError("no \0"), "agent_error", r"ValueError: no \x00"),
        (Refusal("limit_reached", "x" * 3_000), "limit_reached", "x" * 2_000),
        # Of another run than its own: the log of this one is open.
        (Refusal("stale_epoch", "another worker has it"), "stale_epoch", "another worker has it"),
        (Refusal("already_finished", "it has ended"), "already_finished", "it has ended"),
        (BaseExceptionGroup("x", [asyncio.CancelledError(), ValueError("y")]), "agent_error", None),
        (GeneratorExit(), "agent_error", "GeneratorExit"),
        (StopIteration(), "agent_error", None),
    ],
)
async def test_a_run_fails_with_what_its_function_raises(
    raised: BaseException, reason: str, message: str | None
) -> None:
    async def agent(run: Run[Ask]) -> Answer:
        raise raised

    played = await play(agent, Ask("why"))
    assert played.finish.reason == reason
    assert message in (None, played.finish.message)
    assert (await events_of(agent)) == [EventBody(run_finished=played.finish)]


async def test_a_refusal_that_says_no_text_ends_the_run_too() -> None:
    no_text: Any = ValueError("no text")

    async def agent(run: Run[Ask]) -> Answer:
        raise Refusal("limit_reached", no_text)

    assert (await play(agent, Ask("why"))).finish.reason == "adapter_error"
    assert (await events_of(agent))[-1].run_finished.reason == "adapter_error"


async def test_what_a_task_says_after_its_function_is_not_in_the_log() -> None:
    left: list[asyncio.Task[None]] = []

    async def agent(run: Run[Ask]) -> Answer:
        async def later() -> None:
            for _ in range(50):
                await asyncio.sleep(0)
            await run.emit("acme.late")

        left.append(asyncio.create_task(later()))
        return Answer("because")

    played = await play(agent, Ask("why"))
    assert [*played.events, EventBody(run_finished=played.finish)] == await events_of(agent)
    for outcome in await asyncio.gather(*left, return_exceptions=True):
        assert isinstance(outcome, RuntimeError)
        assert "the run's log is closed" in str(outcome)


@pytest.mark.parametrize("of", [dict, list])
async def test_a_value_is_nested_as_deeply_as_the_authority_reads(of: type) -> None:
    async def agent(run: Run[Ask]) -> list[str]:
        refused: list[str] = []
        for levels in range(25, 60):
            try:
                await run.emit("acme.deep", nested(of, levels))
                async with run.tool("deep", nested(of, levels)) as call:
                    call.result = nested(of, levels)
            except Refusal as refusal:
                refused.append(refusal.message)
        return refused

    played = await play(agent, Ask("why"))
    assert [*played.events, EventBody(run_finished=played.finish)] == await events_of(agent, output=list[str])
    assert 5 < len(played.result) < 30
    assert set(played.result) <= {f"{one} is nested too deeply; give it flatter" for one in ("data", "result")}


def nested(of: type, levels: int) -> dict[str, object]:
    """A value of so many levels of a class, in a dict."""
    value: object = 1
    for _ in range(levels):
        value = {"a": value} if of is dict else [value]
    return {"a": value}
