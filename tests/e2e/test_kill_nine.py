"""Nothing acknowledged is lost: kill -9 of any one process in the middle of a run, and the proof is the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from oa_client.subscription import Subscription
from oa_errors import Refusal
from oa_localstack.secrets import SERVICES
from oa_localstack.stack import POSTGRES, Stack
from tests.e2e.world import Tail, counting, signed_in

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]

KILL_AT = 12
"""The seq at which the kill comes; the run has several times as many events."""


@pytest.mark.parametrize("victim", [*SERVICES, POSTGRES])
async def test_a_run_survives_kill_9_of(victim: str, stack: Stack, tmp_path: Path) -> None:
    command, stdout, stderr = counting(lines=300, pause_s=0.01)
    killed = 0

    async def kill_once(_: Subscription, seq: int) -> None:
        nonlocal killed
        if seq == KILL_AT:
            killed = stack.pid(victim) or 0
            os.kill(killed, signal.SIGKILL)  # its supervisor starts it again

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(120):
            run = await world.client.commands.start_exec(command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, kill_once)
            while stack.pid(victim) in (None, killed):
                await asyncio.sleep(0.05)

        assert stack.restarts(victim) == 1
        assert tail.seqs[-1] > 2 * KILL_AT, "the kill came in the middle of the run"
        # Invariant 10: only the gateway's own death ends its connections.
        assert bool(tail.breaks) == (victim == "khala_gateway")
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (stdout, stderr)
        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        await stack.start_service(victim)  # waits until it is ready
        facts = await world.assert_proved(tail, store)
        assert facts.attempts == 1
        await world.assert_summarised(tail)


async def test_a_run_survives_kill_9_of_everything_at_once(stack: Stack, tmp_path: Path) -> None:
    command, stdout, stderr = counting(lines=300, pause_s=0.01)

    async def kill_all(_: Subscription, seq: int) -> None:
        if seq == KILL_AT:
            for name in (POSTGRES, *SERVICES):
                os.kill(stack.pid(name) or 0, signal.SIGKILL)

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(120):
            run = await world.client.commands.start_exec(command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, kill_all)
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (stdout, stderr)
        for name in SERVICES:
            await stack.start_service(name)
        await world.assert_proved(tail, store)
        await world.assert_summarised(tail)


async def test_a_run_survives_a_stop_and_a_start_of_the_stack(stack: Stack, tmp_path: Path) -> None:
    """The worker and the command go on while nothing is there; everything that they did is in the log afterwards."""
    command, stdout, stderr = counting(lines=300, pause_s=0.01)

    async def leave(_: Subscription, seq: int) -> bool:
        return seq < KILL_AT

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(120):
            run = await world.client.commands.start_exec(command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, leave)
            await stack.stop()
            await stack.start()
            await world.follow(tail, store)
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (stdout, stderr)
        await world.assert_proved(tail, store)
        await world.assert_summarised(tail)


async def test_live_delivery_goes_on_while_control_is_down(stack: Stack, tmp_path: Path) -> None:
    """Invariant 10: without control there are no new commands, and what is watched goes on to its end."""
    command, stdout, _ = counting(lines=150, pause_s=0.01)

    async def take_control_away(_: Subscription, seq: int) -> None:
        if seq == KILL_AT:
            stack.kill("control")

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(60):
            run = await world.client.commands.start_exec(command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, take_control_away)
            assert stack.pid("control") is None
            with pytest.raises(Refusal) as refusal:
                await world.client.commands.run(run.run_id)
            assert refusal.value.reason == "unavailable"
        assert tail.breaks == 0
        assert bytes(tail.stdout) == stdout
        await stack.start_service("control")
        await world.assert_proved(tail, store)
