"""Beside a second replica of runtime the stack goes on without the first one, as long as that one is away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from oa_client.follow.subscription import Subscription
from oa_localstack.installation.ports import HOST
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.nats import nats_server
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, signed_in

pytestmark = pytest.mark.long

KEEPALIVE = {"OA_GRPC_KEEPALIVE_MS": "1000", "OA_GRPC_KEEPALIVE_TIMEOUT_MS": "1000"}


@asynccontextmanager
async def _two_runtimes(scratch: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[StackUnderTest]:
    """A stack whose services know of a second runtime, which starts last and is the one that workers attach to.

    `settings` are those of both runtimes.
    """
    settings = settings or {}
    base = free_port(tuple(PORT_OFFSETS.values()))
    first = f"{HOST}:{base + PORT_OFFSETS['runtime_grpc']}"
    second, ops_port = f"{HOST}:{free_port()}", free_port()
    knowing = {"OA_RUNTIME_GRPC": f"{first},{second}", **KEEPALIVE}
    overrides = {
        "control": {**knowing, "OA_RUNTIME_PUBLIC_GRPC": second},
        "projector": knowing,
        "khala_gateway": knowing,
        "runtime": settings,
    }
    stack = StackUnderTest(scratch / "home", port_base=base, postgres_settings=FAST, overrides=overrides)
    await stack.start()
    try:
        addresses = {"OA_GRPC_ADDRESS": second, "OA_OPS_ADDRESS": f"{HOST}:{ops_port}"}
        async with stack.replica("runtime", {**settings, **addresses, "OA_DATABASE_MAY_LOSE_COMMITS": "true"}):
            yield stack
    finally:
        await stack.stop()


def _kill(stack: StackUnderTest) -> None:
    stack.kill("runtime")


def _freeze(stack: StackUnderTest) -> None:
    pid = stack.pid("runtime")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("loss", [_kill, _freeze])
async def test_a_run_is_watched_to_its_end_while_one_runtime_is_away(
    loss: Callable[[StackUnderTest], None], scratch: Path, tmp_path: Path
) -> None:
    counting = Counting(tmp_path / "gates", lines=100)
    in_the_middle = asyncio.Event()

    async def note_output(_: Subscription, seq: int) -> None:
        if tail.stdout:
            in_the_middle.set()

    async with (
        _two_runtimes(scratch) as stack,
        signed_in(stack, tmp_path / "client") as world,
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        store = world.open_store()
        async with world.worker():
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            following = asyncio.create_task(world.follow(tail, store, note_output))
            await in_the_middle.wait()
            loss(stack)
            counting.go_on()
            await following
            assert tail.finish is not None
            assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
            assert (await world.assert_proved(tail, store)).attempts == 1
            await world.assert_summarised(tail)


@pytest.mark.parametrize("over_nats", [False, True], ids=["postgres", "nats"])
async def test_each_runtime_hears_of_the_others_commits_at_once(over_nats: bool, scratch: Path, tmp_path: Path) -> None:
    """Neither ever looks at the heads: what the other stores is followed because it is told."""
    async with AsyncExitStack() as stack_of, asyncio.timeout(RUN_TIMEOUT_S):
        settings = {"OA_TAIL_POLL_MS": "600000"}
        if over_nats:
            settings["OA_FANOUT_NATS_URL"] = (await stack_of.enter_async_context(nats_server())).url
        stack = await stack_of.enter_async_context(_two_runtimes(scratch, settings))
        world = await stack_of.enter_async_context(signed_in(stack, tmp_path / "client"))
        store = world.open_store()
        await stack_of.enter_async_context(world.worker())
        for _ in range(4):
            run = await world.client.commands.start_exec(["seq", "20"])
            tail = Tail(run.run_id)
            await world.follow(tail, store)
            assert tail.finish is not None
            await world.assert_summarised(tail)
