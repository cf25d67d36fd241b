"""Progress: what comes too fast is joined, and the last report is never lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.testing import Played, play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.sdk.adapter import CancelSignal
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb

NEVER_AGAIN = AgentLimits(progress_interval_ms=3_600_000)
AT_ONCE = AgentLimits(progress_interval_ms=0)


def reports(played: Played[Any]) -> list[str]:
    return [event.progress_reported.text for event in played.events if event.HasField("progress_reported")]


async def counts(run: Run[Ask]) -> str:
    """Reports as often as it is asked for."""
    for done in range(1, run.input.most + 1):
        await run.progress(f"{done} of {run.input.most} files", done=done, total=run.input.most)
    return "done"


async def test_what_comes_too_fast_is_joined_and_the_last_one_is_stored() -> None:
    assert reports(await play(counts, Ask("?", 5), limits=NEVER_AGAIN)) == ["1 of 5 files", "5 of 5 files"]
    assert reports(await play(counts, Ask("?", 1), limits=NEVER_AGAIN)) == ["1 of 1 files"]


async def test_what_comes_slowly_is_stored_each_time() -> None:
    assert reports(await play(counts, Ask("?", 3), limits=AT_ONCE)) == ["1 of 3 files", "2 of 3 files", "3 of 3 files"]


async def test_the_newest_of_an_interval_is_stored_when_it_is_over() -> None:
    runtime = asked()
    log = runtime.logs[RUN]
    goes_on = asyncio.Event()

    async def agent(run: Run[Ask]) -> Answer:
        for number in (1, 2, 3):
            await run.progress(str(number))
        await goes_on.wait()
        return Answer("")

    async with working(runtime, agent, Ask, Answer, AgentLimits(progress_interval_ms=200)):
        await runtime.until(lambda: len(log.events) == 2)
        assert [event.progress_reported.text for event in log.events] == ["1", "3"]
        goes_on.set()
        await runtime.until(lambda: log.finished)
    assert len(log.events) == 3


async def test_numbers_are_there_only_if_they_were_said() -> None:
    async def agent(run: Run[Ask]) -> None:
        await run.progress("begins")
        await run.progress("none yet", done=0)
        await run.progress("all", done=2**64 - 1, total=0)

    events = [event.progress_reported for event in (await play(agent, Ask("?"), limits=AT_ONCE)).events]
    assert events == [
        pb.ProgressReported(text="begins"),
        pb.ProgressReported(text="none yet", done=0),
        pb.ProgressReported(text="all", done=2**64 - 1, total=0),
    ]
    assert [one.HasField("done") for one in events] == [False, True, True]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 201}, "text"),
        ({"text": "a", "done": -1}, "done"),
        ({"text": "a", "total": 2**64}, "total"),
    ],
)
async def test_what_can_not_be_said_is_refused_where_it_is_said_also_if_it_would_be_joined(
    said: dict[str, object], field: str
) -> None:
    async def agent(run: Run[Ask]) -> str:
        await run.progress("first")
        try:
            await run.progress(**said)  # type: ignore[arg-type]
        except Refusal as refusal:
            return refusal.field
        return "taken"

    played = await play(agent, Ask("?"), limits=NEVER_AGAIN)
    assert (played.result, reports(played)) == (field, ["first"])


async def test_the_last_report_is_stored_however_the_run_ends() -> None:
    async def fails(run: Run[Ask]) -> str:
        await counts(run)
        raise ValueError("no")

    played = await play(fails, Ask("?", 4), limits=NEVER_AGAIN)
    assert (played.finish.reason, reports(played)[-1]) == ("agent_error", "4 of 4 files")

    async def waits(run: Run[Ask]) -> str:
        await counts(run)
        cancel.request("enough", 10_000)
        await asyncio.get_running_loop().create_future()
        return ""

    cancel = CancelSignal()
    played = await play(waits, Ask("?", 4), limits=NEVER_AGAIN, cancel=cancel)
    assert (played.finish.reason, reports(played)[-1]) == ("canceled", "4 of 4 files")


async def test_whatever_dies_the_last_report_is_that_of_the_end() -> None:
    async for played in play_with_deaths(counts, Ask("?", 3), limits=NEVER_AGAIN):
        assert reports(played)[-1] == "3 of 3 files"


async def test_a_run_that_was_taken_away_says_nothing_more() -> None:
    runtime = asked()
    log = runtime.logs[RUN]

    async def agent(run: Run[Ask]) -> Answer:
        await run.progress("1")
        await run.progress("2")
        await asyncio.get_running_loop().create_future()
        return Answer("")

    async with working(runtime, agent, Ask, Answer, NEVER_AGAIN):
        await runtime.until(lambda: len(log.events) == 1)
        runtime.take_lease(RUN)
        await runtime.until(lambda: runtime.held[-1:] == [[]])
    assert [event.progress_reported.text for event in log.events] == ["1"]
