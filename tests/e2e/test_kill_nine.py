"""Nothing acknowledged is lost: kill -9 of any one process in the middle of a run, and the proof is the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from oa_client.subscription import Subscription
from oa_localstack.secrets import SERVICES
from oa_localstack.stack import POSTGRES, Stack
from tests.e2e.world import Tail, counting, signed_in

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]


@pytest.mark.parametrize("victim", [*SERVICES, POSTGRES])
async def test_a_run_survives_kill_9_of(victim: str, stack: Stack, tmp_path: Path) -> None:
    command, stdout, stderr = counting(lines=300, pause_s=0.01)
    killed = 0

    async def kill_at_twelve(_: Subscription, seq: int) -> None:
        nonlocal killed
        if seq == 12:
            killed = stack.pid(victim) or 0
            os.kill(killed, signal.SIGKILL)  # its supervisor starts it again

    async with signed_in(stack, tmp_path / "client") as world:
        store = world.open_store()
        async with world.worker(), asyncio.timeout(120):
            run = await world.client.commands.start_exec(command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, kill_at_twelve)
            while stack.pid(victim) in (None, killed):
                await asyncio.sleep(0.05)

        assert stack.restarts(victim) == 1
        assert (bytes(tail.stdout), bytes(tail.stderr)) == (stdout, stderr)
        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        await stack.start_service(victim)  # waits until it is ready
        facts = await world.assert_proved(tail, store)
        assert facts.attempts == 1
        await world.assert_summarised(tail)
