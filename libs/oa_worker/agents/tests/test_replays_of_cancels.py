"""Replays of runs whose end was asked for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from oa_worker.agents import Run
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Answer, Ask
from oa_worker.sdk.adapter import CancelSignal


async def note(text: str) -> str:
    return text


async def test_a_cancel_reaches_the_code_where_it_did() -> None:
    began = asyncio.Event()

    async def waits(run: Run[Ask]) -> Answer:
        await run.step("begin", note, "x")
        began.set()
        try:
            await run.receive(str)
        except asyncio.CancelledError:
            await run.step("undo", note, "y")
            raise
        return Answer("")

    cancel = CancelSignal()
    playing = asyncio.ensure_future(play(waits, Ask("x"), cancel=cancel))
    await began.wait()
    cancel.request("enough", 10_000)
    log = recorded(await playing, Ask("x"), cancel_at=1)
    (await replay(waits, log, input=Ask, output=Answer)).check(whole=True)

    async def leaves_it(run: Run[Ask]) -> Answer:
        await run.step("begin", note, "x")
        await run.receive(str)
        return Answer("")

    diverged = (await replay(leaves_it, log, input=Ask, output=Answer)).divergence
    assert diverged is not None
    assert diverged.recorded == "step 2, 'undo'"


@pytest.mark.parametrize("has_end", [True, False], ids=["the worker ended the run", "the log ends before that"])
async def test_code_that_ignores_its_cancel_is_not_waited_for_without_end(has_end: bool) -> None:
    async def ends(run: Run[Ask]) -> Answer:
        await run.step("begin", note, "x")
        began.set()
        await over.wait()
        return Answer("")

    async def ignores(run: Run[Ask]) -> Answer:
        await run.step("begin", note, "x")
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return Answer("")

    cancel, began, over = CancelSignal(), asyncio.Event(), asyncio.Event()
    playing = asyncio.ensure_future(play(ends, Ask("x"), cancel=cancel))
    await began.wait()
    cancel.request("enough", 10_000)
    log = recorded(await playing, Ask("x"), cancel_at=1, upto=None if has_end else 1)
    replayed = await replay(ignores, log, limits=AgentLimits(stop_timeout_ms=50), input=Ask, output=Answer)
    over.set()
    if has_end:
        assert replayed.divergence is not None
        assert replayed.divergence.asked == "a function that ignores its cancel"
    else:
        assert (replayed.is_same, replayed.stopped) == (True, "the end of the function, which ignores its cancel")
