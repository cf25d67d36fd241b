"""The example whose agent lets others work, as it is shipped: on one worker, and across a kill of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from oa_runlog.fingerprint import text_sha256
from oa_testing.stack import StackUnderTest
from openagents import Client, RunHandle, events
from tests.e2e.callers import caller_of
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO


async def bodies_of(run: RunHandle) -> AsyncIterator[events.EventBody]:
    """What happens in a run, to its end."""
    async for event in run.events():
        yield event.body


async def started(env: dict[str, str]) -> asyncio.subprocess.Process:
    """A worker with the agents `report` and `price`."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    program = str(REPO / "examples" / "children.py")
    return await asyncio.create_subprocess_exec(sys.executable, program, env={**os.environ, **env, "PYTHONPATH": paths})


async def test_an_agent_lets_others_work_for_it(stack: StackUnderTest, scratch: Path) -> None:
    async with (
        caller_of(stack, scratch) as caller,
        Client.from_env(caller.env) as client,
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        worker = await started(caller.env)
        try:
            run = await client.start("report", ["tea", "gold", "salt"])
            assert await run.output(dict[str, int]) == {"tea": 3, "salt": 4}
            seen = [event.body async for event in run.events()]
            started_children = [body for body in seen if isinstance(body, events.ChildStarted)]
            children = [body.run_id for body in started_children]
            ends = {body.run_id: body.finish for body in seen if isinstance(body, events.ChildFinished)}
            assert len(children) == 3
            assert set(ends) == set(children)
            inputs = {body.input_sha256 for body in started_children}
            assert inputs == {text_sha256(f'"{name}"') for name in ("tea", "gold", "salt")}
            child = client.run(children[1])
            state = await child.state()
            assert state.parent_run_id == run.run_id
            assert state.finish is not None
            assert (state.finish.reason, ends[child.run_id].reason) == ("agent_error", "agent_error")
            created = [body async for body in bodies_of(child) if isinstance(body, events.RunCreated)]
            assert [body.parent_run_id for body in created] == [run.run_id]
        finally:
            worker.send_signal(signal.SIGTERM)
            assert await worker.wait() == 0
