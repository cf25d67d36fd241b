"""The example that fails, as it is shipped: it is tried again as its run says, and goes on where it failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from oa_testing.stack import StackUnderTest
from openagents import Client, Queue, Retry, RunFailed, events
from tests.e2e.callers import caller_of
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO


@asynccontextmanager
async def example(env: dict[str, str]) -> AsyncIterator[None]:
    """A worker with the agent `import`."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    program = str(REPO / "examples" / "retries.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, env={**os.environ, **env, "PYTHONPATH": paths}
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_failed_run_goes_on_where_it_failed(stack: StackUnderTest, scratch: Path) -> None:
    done, once = scratch / "done", scratch / "once"
    retried = Queue(retry=Retry(failures=2, delay=timedelta(milliseconds=10)), run_timeout=timedelta(hours=1))
    async with (
        caller_of(stack, scratch) as caller,
        Client.from_env(caller.env) as client,
        example(caller.env),
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        run = await client.start("import", {"file": str(done)}, queue=retried)
        assert await run.output(int) == 2
        assert done.read_text("utf-8") == "loaded\npublished 2\n"
        seen = [event.body async for event in run.events()]
        kinds = [type(body) for body in seen if not isinstance(body, events.StepCompleted)]
        assert kinds == [
            events.RunCreated,
            events.RunStarted,
            events.AttemptFailed,
            events.RunStarted,
            events.RunFinished,
        ]
        (failed,) = (body for body in seen if isinstance(body, events.AttemptFailed))
        assert (failed.failure.reason, failed.failure.message) == (
            "agent_error",
            "ConnectionError: the server is busy",
        )
        with pytest.raises(RunFailed) as ended:
            await (await client.start("import", {"file": str(once)})).result()
        assert ended.value.reason == "agent_error", "without a policy it fails once and for all"
