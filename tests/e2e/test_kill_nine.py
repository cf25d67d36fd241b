"""Nothing acknowledged is lost: kill -9 of any one process in the middle of a run, and the proof is the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.follow.subscription import Subscription
from oa_localstack.postgres.server import POSTGRES
from oa_platform.config.callers import SERVICES
from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, signed_in

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("real_processes"),
]


@pytest.fixture
def stack(shared_stack: StackUnderTest) -> StackUnderTest:
    """One for all tests of this module: each leaves it running."""
    return shared_stack


@pytest.mark.parametrize("victim", [*SERVICES, POSTGRES])
async def test_a_run_survives_kill_9_of(victim: str, stack: StackUnderTest, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=300)
    killed = 0
    before = stack.restarts(victim)

    async def kill_once(_: Subscription, seq: int) -> None:
        nonlocal killed
        if tail.stdout and not killed:
            killed = stack.pid(victim) or 0
            os.kill(killed, signal.SIGKILL)  # its supervisor starts it again
            counting.go_on()  # half of the output is still to come, and comes while the victim is away

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, kill_once)
            while stack.pid(victim) in (None, killed):
                await asyncio.sleep(0.05)

        assert stack.restarts(victim) == before + 1
        # Invariant 10: only the gateway's own death ends its connections.
        assert bool(tail.breaks) == (victim == "khala_gateway")
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        await stack.start_service(victim)  # waits until it is ready
        facts = await world.assert_proved(tail, store)
        assert facts.attempts == 1
        await world.assert_summarised(tail)


async def test_a_run_survives_kill_9_of_everything_at_once(stack: StackUnderTest, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=300)
    killed = False

    async def kill_all(_: Subscription, seq: int) -> None:
        nonlocal killed
        if tail.stdout and not killed:
            killed = True
            for name in (POSTGRES, *SERVICES):
                os.kill(stack.pid(name) or 0, signal.SIGKILL)
            counting.go_on()

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, kill_all)
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
        for name in SERVICES:
            await stack.start_service(name)
        await world.assert_proved(tail, store)
        await world.assert_summarised(tail)


async def test_a_run_survives_a_stop_and_a_start_of_the_stack(stack: StackUnderTest, tmp_path: Path) -> None:
    """The worker and the command go on while nothing is there; everything that they did is in the log afterwards."""
    counting = Counting(tmp_path / "gates", lines=300)

    async def leave(_: Subscription, seq: int) -> bool:
        return not tail.stdout

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, leave)
            await stack.stop()
            counting.go_on()
            await counting.until_ended()
            await stack.start()
            await world.follow(tail, store)
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
        await world.assert_proved(tail, store)
        await world.assert_summarised(tail)


async def test_live_delivery_goes_on_while_control_is_down(stack: StackUnderTest, tmp_path: Path) -> None:
    """Invariant 10: without control there are no new commands, and what is watched goes on to its end."""
    counting = Counting(tmp_path / "gates", lines=150)

    async def take_control_away(_: Subscription, seq: int) -> None:
        if tail.stdout and stack.pid("control") is not None:
            stack.kill("control")
            counting.go_on()

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, take_control_away)
            assert stack.pid("control") is None
            with pytest.raises(Refusal) as refusal:
                await world.client.commands.run(run.run_id)
            assert refusal.value.reason == "unavailable"
        assert tail.breaks == 0
        assert bytes(tail.stdout) == counting.stdout
        await stack.start_service("control")
        await world.assert_proved(tail, store)
