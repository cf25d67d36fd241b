"""A run that is to end: what the authority refuses may overtake the cancel, and the run is canceled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import Run
from oa_worker.agents.testing import Played, play
from oa_worker.agents.tests.rig import Answer, Ask
from oa_worker.sdk.adapter import CancelSignal
from openagents.runtime.v1 import event_pb2 as pb

Act = Callable[[Run[Ask]], Awaitable[object]]


async def start_child(run: Run[Ask]) -> None:
    await run.start_child("quote", None)


async def await_deadline(run: Run[Ask]) -> None:
    await run.approve("Order?", deadline=timedelta(milliseconds=1))


async def nothing(*_: Any, **__: Any) -> AsyncIterator[bytes]:
    """The events of a log in which nobody has settled the request."""
    for event in list[bytes]():
        yield event


async def played_with_refusals(act: Act, *, after_cancel: bool = False) -> Played[Any]:
    """Play an agent that does this while, or after, its run is canceled, and the authority refuses it."""
    cancel = CancelSignal()

    async def refused(*_: object) -> Any:
        asyncio.get_running_loop().call_soon(cancel.request, "enough", 600_000)
        raise Refusal("invalid_transition", "the run is canceling")

    async def agent(run: Run[Ask]) -> Answer:
        for one in (run._children, run._requests):
            one._assignment = replace(one._assignment, start_child=refused, expire=refused, read=nothing)
        if after_cancel:
            cancel.request("enough", 600_000)
            try:
                await asyncio.Event().wait()
            finally:
                await act(run)
        await act(run)
        raise AssertionError

    return await play(agent, Ask("tea"), cancel=cancel)


@pytest.mark.parametrize("act", [start_child, await_deadline])
async def test_a_refusal_that_overtakes_the_cancel_waits_for_it(act: Act) -> None:
    finish = (await played_with_refusals(act)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_CANCELED, "canceled")


@pytest.mark.parametrize("act", [start_child, await_deadline])
async def test_a_function_that_cleans_up_after_the_cancel_gets_the_refusal(act: Act) -> None:
    raised = list[str]()

    async def cleans_up(run: Run[Ask]) -> None:
        try:
            await act(run)
        except Refusal as refusal:
            raised.append(refusal.reason)

    finish = (await played_with_refusals(cleans_up, after_cancel=True)).finish
    assert (finish.outcome, raised) == (pb.RUN_OUTCOME_CANCELED, ["invalid_transition"])
