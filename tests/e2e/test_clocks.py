"""Clocks of services that differ by 30 s: each is named, nobody is sent the wrong way, and all goes on once they are
mended."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_client.follow.updates import Applied, Connection
from oa_khala.topics import run_events
from oa_platform.config.callers import SERVICES
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.fork_server import PYTHON
from oa_testing.plain_http import plain_http
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from oa_worker.sdk.limits import DEFAULT_WORKER_LIMITS
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Tail, World, signed_in

SKEW_MS = -30_000
MORE_TRIES_THAN_A_WRONG_KEY_GETS = DEFAULT_WORKER_LIMITS.max_rejected_tokens + 1


class Clocks:
    """The clocks of a stack's services."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        folder.chmod(0o755)
        for service in SERVICES:
            self.set(service, 0)

    def file(self, service: str) -> Path:
        """Where it stands how wrong the service's clock is."""
        return self._folder / service

    def set(self, service: str, skew_ms: int) -> None:
        """From now on it is wrong by so much."""
        staging = self._folder / f".{service}"
        staging.write_text(str(skew_ms))
        staging.replace(self.file(service))


@pytest.fixture
def clocks(scratch: Path) -> Clocks:
    return Clocks(scratch / "clocks")


@pytest_asyncio.fixture
async def stack(scratch: Path, clocks: Clocks) -> AsyncIterator[StackUnderTest]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    program = (PYTHON, "-P", "-m", "tests.e2e.skewed_service")
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        env={**os.environ, "PYTHONPATH": path},
        commands={service: (*program, service, str(clocks.file(service))) for service in SERVICES},
    )
    await stack.start()
    yield stack
    await stack.stop()


async def readiness(stack: StackUnderTest, ops_port: int) -> dict[str, str]:
    async with plain_http(timeout_s=STEP_TIMEOUT_S) as client:
        failures: dict[str, str] = (await client.get(f"http://127.0.0.1:{ops_port}/readyz")).json()["failures"]
    return failures


async def refused(call: Callable[[], Awaitable[object]]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await call()
    return caught.value


def assert_named(refusal: Refusal, service: str) -> None:
    assert refusal.reason == "clock_skew", refusal
    assert (refusal.metadata["clock"], refusal.metadata["compared_with"]) == (service, "control")
    # Exact to the round trip in which it was measured.
    assert SKEW_MS - 1 <= int(refusal.metadata["ahead_ms"]) < -5_000
    assert f"the clock of {service} is" in refusal.message


async def start_run(world: World, key: str) -> str:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        return (await world.client.commands.start_exec(["echo", "hello"], idempotency_key=key)).run_id


async def until_logged(stack: StackUnderTest, text: str, times: int) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while (await asyncio.to_thread(stack.log_path("worker").read_text)).count(text) < times:
            await asyncio.sleep(0.05)


async def test_each_service_says_whose_clock_is_wrong_and_all_goes_on_when_it_is_right(
    stack: StackUnderTest, clocks: Clocks, tmp_path: Path
) -> None:
    ops = {"runtime": stack.ports.runtime_ops, "projector": stack.ports.projector_ops}
    ops |= {"khala_gateway": stack.ports.gateway_ops, "control": stack.ports.control_ops}
    async with signed_in(stack, tmp_path / "client") as world, asyncio.timeout(RUN_TIMEOUT_S * 2):
        commands = world.client.commands
        await commands.caller()
        for service, port in ops.items():
            assert await readiness(stack, port) == {}
            clocks.set(service, SKEW_MS)
            assert "clock_skew: the clock of " + service in (await readiness(stack, port))["clock"]
            clocks.set(service, 0)
            assert await readiness(stack, port) == {}

        clocks.set("projector", SKEW_MS)
        assert_named(await refused(commands.runs), "projector")
        clocks.set("projector", 0)
        await commands.runs()

        clocks.set("runtime", SKEW_MS)
        assert_named(await refused(lambda: start_run(world, "k1")), "runtime")
        async with world.worker() as worker:
            # It never gives up for a clock, and says what it waits for.
            await until_logged(stack, "clock_skew: the clock of runtime is", MORE_TRIES_THAN_A_WRONG_KEY_GETS)
            assert worker.poll() is None
            clocks.set("runtime", 0)
            run_id = await start_run(world, "k1")

            clocks.set("khala_gateway", SKEW_MS)
            await _follow_through_a_wrong_clock(world, clocks, run_id)


async def _follow_through_a_wrong_clock(world: World, clocks: Clocks, run_id: str) -> None:
    store, tail = world.open_store(), Tail(run_id)
    said = ""
    async with world.client.subscription(store) as subscription:
        await subscription.follow(run_events(run_id))
        async for update in subscription.updates():
            match update:
                case Connection(open=False, message=message) if not said:
                    said = message
                    clocks.set("khala_gateway", 0)
                case Applied(seq=seq, payload=payload):
                    tail.take(seq, payload)
            if tail.finish:
                break
    assert "clock_skew: the clock of khala_gateway is" in said
    assert bytes(tail.stdout) == b"hello\n"
