"""The fake clock wakes sleepers at their own moments."""

from __future__ import annotations

import asyncio

from oa_testing.clock import FakeClock


async def test_sleepers_wake_in_order_at_their_own_moments(clock: FakeClock) -> None:
    woke: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woke.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper("late", 3)), asyncio.create_task(sleeper("early", 1))]
    await clock.advance(2)
    assert woke == [("early", 1.0)]
    assert clock.sleeping == 1
    await clock.advance(5)
    assert woke == [("early", 1.0), ("late", 3.0)]
    assert clock.monotonic() == 7.0
    await asyncio.gather(*tasks)


async def test_a_loop_of_sleeps_runs_as_often_as_the_span_allows(clock: FakeClock) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await clock.sleep(10)
            ticks += 1

    task = asyncio.create_task(tick())
    await clock.advance(35)
    assert ticks == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleeping == 0


async def test_wall_and_monotonic_time_move_together(clock: FakeClock) -> None:
    before_ms = clock.now_ms()
    await clock.advance(1.5)
    assert clock.now_ms() - before_ms == 1500
    assert clock.monotonic() == 1.5
