"""The example with checkpoints, as it is shipped: its worker is killed in the middle, and another one goes on."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from pathlib import Path

from openagents import Client, events
from tests.e2e.killed import example, impatient
from tests.e2e.world import RUN_TIMEOUT_S


async def test_the_next_worker_goes_on_where_the_first_one_was(scratch: Path) -> None:
    files = [scratch / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text(file.name, "utf-8")
    order = {"files": [str(file) for file in files], "wait_s": 6.0}
    async with (
        impatient(scratch) as caller,
        Client.from_env(caller.env) as client,
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        run = await client.start("digests", order, key="digests-1")
        async with example(caller, "checkpoints.py") as first:
            async for event in run.events():
                match event.body:
                    case events.CheckpointSaved(number=2):
                        break
            first.send_signal(signal.SIGKILL)
            await first.wait()
        files[0].unlink()  # whoever begins anew fails
        async with example(caller, "checkpoints.py"):
            result = await run.output(dict[str, dict[str, str]])
        seen = [event.body async for event in run.events()]
    assert result == {"by_file": {str(file): hashlib.sha256(file.name.encode()).hexdigest() for file in files}}
    assert [body.number for body in seen if isinstance(body, events.CheckpointSaved)] == [1, 2, 3]
    told = [body for body in seen if isinstance(body, events.ProgressReported)]
    assert told[-1] == events.ProgressReported("3 of 3 files", 3, 3)
    assert [body.attempt for body in seen if isinstance(body, events.RunStarted)] == [1, 2]
