"""Times of a run are the authority's, and are noticed by a machine that has slept meanwhile."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import Run
from oa_worker.agents.primitives import times
from oa_worker.agents.primitives.times import LOOK_AGAIN_S, seconds_to_wait, wait_until
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.tests.fake_runtime import RUN

HOUR = timedelta(hours=1)
DAYS_AHEAD = timedelta(days=400)


def _ahead() -> datetime:
    return datetime.now(UTC) + DAYS_AHEAD


async def _asks(run: Run[Ask]) -> Answer:
    await run.sleep(timedelta(milliseconds=1))
    now = await run.now()
    await run.approve("Order?", deadline=HOUR)
    return Answer(now.isoformat())


async def test_the_times_of_a_run_are_the_authoritys() -> None:
    runtime = asked()
    runtime.clock = _ahead
    began = _ahead()
    async with working(runtime, _asks, Ask, Answer):
        await runtime.until(lambda: any(one.HasField("request_opened") for one in runtime.logs[RUN].events))
        runtime.answer(RUN, "r1", "yes")
        await runtime.until(lambda: runtime.logs[RUN].finished)
    events = runtime.logs[RUN].events
    (deadline,) = (one.request_opened.deadline_time for one in events if one.HasField("request_opened"))
    assert began + HOUR <= deadline.ToDatetime(UTC) <= _ahead() + HOUR
    now = datetime.fromisoformat(json.loads(events[-1].run_finished.result_json)["text"])
    assert began <= now <= _ahead()


async def test_a_deadline_that_passed_while_the_machine_slept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "LOOK_AGAIN_S", 0.01)
    runtime = asked()
    runtime.clock = _ahead
    async with working(runtime, _asks, Ask, Answer):
        await runtime.until(lambda: any(one.HasField("request_opened") for one in runtime.logs[RUN].events))
        runtime.clock = lambda: _ahead() + 2 * HOUR
        runtime.announce_drain()  # the worker attaches again, as it does after a sleep
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert "request_expired" in [one.WhichOneof("kind") for one in runtime.logs[RUN].events]


async def test_a_time_that_came_while_the_machine_slept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "LOOK_AGAIN_S", 0.01)
    shown = [_ahead()]
    waiting = asyncio.create_task(wait_until(shown[0] + HOUR, lambda: shown[0]))
    await asyncio.sleep(0)
    assert not waiting.done()
    shown[0] += 2 * HOUR
    async with asyncio.timeout(PATIENCE_S):
        await waiting


def test_the_clock_is_looked_at_again_before_a_long_wait_is_over() -> None:
    now = _ahead()
    assert seconds_to_wait(now + HOUR, now) == LOOK_AGAIN_S
    assert seconds_to_wait(now + timedelta(seconds=1), now) == 1
    assert seconds_to_wait(now - HOUR, now) == 0
