"""What ends a program of agents: a real process with a run at work, at a stand-in of the site."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps.cli.tests.fake_control import TIMEOUT_S, control
from oa_platform.process.signals import EXIT_SECOND_SIGNAL, STOP_SIGNALS
from oa_worker.agents.tests.rig import asked
from oa_worker.tests.fake_runtime import RUN, FakeRuntime

PROGRAM = """
import asyncio
from pathlib import Path
from openagents import Run, Worker

worker = Worker.from_env()

@worker.agent("a", input=object, output=str)
async def agent(run: Run[object]) -> str:
    await run.emit("acme.begun")
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "done"

worker.run()
print("returned", flush=True)
"""


BLOCKED = """
import asyncio
import threading
from openagents import Run, Worker

worker = Worker.from_env()

def block() -> None:
    threading.Event().wait()

@worker.agent("a", input=object, output=str)
async def agent(run: Run[object]) -> str:
    await run.emit("acme.begun")
    await {blocks}
    return "done"

worker.run()
print("returned", flush=True)
"""


@asynccontextmanager
async def program(
    home: Path, text: str = PROGRAM, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, FakeRuntime]]:
    """A program whose agent is at work until there is a file `go`."""
    runtime = asked()
    async with runtime.running(), control(runtime) as url:
        env = os.environ | {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_test", "PYTHONPATH": os.pathsep.join(sys.path)}
        env |= variables
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", text, cwd=home, env=env, stdout=pipe, stderr=pipe
        )
        try:
            await runtime.until(lambda: bool(runtime.logs[RUN].events), TIMEOUT_S)
            yield process, runtime
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, bytes, bytes]:
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_the_first_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    async with program(tmp_path) as (process, runtime):
        process.send_signal(number)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        (tmp_path / "go").touch()
        assert await ended(process) == (0, b"returned\n", b"")
    assert runtime.said[-1] == "goodbye"
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '"done"'


async def test_a_worker_runs_and_drains_on_the_loop_of_its_author(tmp_path: Path) -> None:
    text = PROGRAM.replace("import asyncio", "import asyncio, uvloop")
    text = text.replace("worker.run()", "worker.run(loop_factory=uvloop.new_event_loop)")
    text = text.replace('return "done"', "return type(asyncio.get_running_loop()).__module__")
    async with program(tmp_path, text) as (process, runtime):
        process.send_signal(signal.SIGTERM)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        (tmp_path / "go").touch()
        assert await ended(process) == (0, b"returned\n", b"")
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '"uvloop"'


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(STOP_SIGNALS, 2), (signal.SIGTERM,) * 2])
async def test_the_second_signal_ends_it_at_once(tmp_path: Path, first: signal.Signals, second: signal.Signals) -> None:
    async with program(tmp_path) as (process, runtime):
        process.send_signal(first)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        process.send_signal(second)
        assert await ended(process) == (EXIT_SECOND_SIGNAL, b"", b"")
    assert "goodbye" not in runtime.said


@pytest.mark.parametrize("blocks", ["asyncio.to_thread(block)", 'run.step("s", block)'])
async def test_a_thread_that_is_blocked_for_good_keeps_no_worker(tmp_path: Path, blocks: str) -> None:
    text = BLOCKED.format(blocks=blocks)
    async with program(tmp_path, text, OA_WORKER_DRAIN_S="0") as (process, runtime):
        process.send_signal(signal.SIGTERM)
        status, out, _ = await ended(process)
        assert (status, out) == (0, b"returned\n")
    assert runtime.said[-1] == "goodbye"


FORKS = """
import os
from openagents import Run, Worker

worker = Worker.from_env()

@worker.agent("a", input=object, output=str)
async def agent(run: Run[object]) -> str:
    await run.emit("acme.begun")
    child = os.fork()
    if child == 0:
        {child}
    os.waitpid(child, 0)
    return "done"

worker.run()
"""


@pytest.mark.parametrize("child", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.execv('/bin/true', ['true'])"])
async def test_an_agent_that_forks_ends_its_run_itself(tmp_path: Path, child: str) -> None:
    """The child has copies of the worker's sockets, and ends them."""
    async with program(tmp_path, FORKS.format(child=child)) as (process, runtime):
        await runtime.until(lambda: runtime.logs[RUN].finished, TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        status, _, err = await ended(process)
    assert status == 0, err
    kinds = [event.WhichOneof("kind") for event in runtime.logs[RUN].events]
    assert kinds.count("run_finished") == 1
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '"done"'
