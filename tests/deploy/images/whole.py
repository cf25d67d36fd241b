"""The whole system from its images: four services beside a PostgreSQL, a worker, and a run followed to its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from oa_platform.config.callers import SERVICES
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.deploy.images.sandbox import Image
from tests.e2e.world import Tail, World, signed_in

PATIENCE_S = 600
"""How long anything may take: a guard against waiting for ever, which no slow machine reaches."""
_COMMAND = "import importlib.util as i; print('run by the image', i.find_spec('grpc'), i.find_spec('oa_worker'))"
"""A command that is itself Python finds none of the worker's packages."""
EXPECTED = b"run by the image None None\n"


async def run_once(images: Mapping[str, Image], folder: Path) -> bytes:
    """Start every service from its image, do one run with the worker's, and return what its command wrote.

    Raises Refusal when a service does not become ready, and AssertionError when the run's proof does not hold.
    """
    home = folder / "home"
    home.mkdir()
    # To mount a folder read-only would be truer for secrets; a stack keeps them beside what services write.
    commands = {name: images[name.replace("_", "-")].command(writable=(home,)) for name in SERVICES}
    base = free_port(tuple(PORT_OFFSETS.values()))
    environment = {**os.environ, "OA_READY_TIMEOUT_S": str(PATIENCE_S)}
    stack = StackUnderTest(home, port_base=base, env=environment, commands=commands, postgres_settings=FAST)
    await stack.start()
    try:
        async with signed_in(stack, folder / "client") as world, asyncio.timeout(PATIENCE_S):
            async with _worker(world, images["worker"]):
                run = await world.client.commands.start_exec(["python3", "-c", _COMMAND], title="from an image")
                tail = Tail(run.run_id)
                await world.follow(tail, store := world.open_store())
            await world.assert_proved(tail, store)
            return bytes(tail.stdout)
    finally:
        await stack.stop()


@asynccontextmanager
async def _worker(world: World, image: Image) -> AsyncIterator[None]:
    account = await world.client.commands.create_service_account("images")
    env = {"OA_CONTROL_URL": world.stack.urls["control"], "OA_API_KEY": account.api_key, "PATH": "/usr/bin:/bin"}
    with world.stack.log_path("worker").open("ab") as log:
        process = await asyncio.to_thread(subprocess.Popen, image.command(), env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
