"""`oa worker start` and what ends it: a real process with a real command, at a stand-in of the site."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps.cli.commands.local.workers import _View
from apps.cli.exits import Exit
from apps.cli.output import Output
from apps.cli.tests.fake_control import TIMEOUT_S, control
from apps.cli.tests.program import Program
from oa_base.refusal import Refusal
from oa_localstack.installation.state import ProcessMark, StackState, remove_state, write_state
from oa_platform.process.signals import STOP_SIGNALS
from oa_worker.sdk.notices import Attached, Detached
from oa_worker.tests.commands import alive, until_dead
from oa_worker.tests.fake_runtime import RUN, FakeRuntime
from openagents.runtime.v1.event_pb2 import ExecSpec, RunSpec


@asynccontextmanager
async def worker(home: Path, script: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, FakeRuntime, int]]:
    """A worker at work on a command that says its pid first."""
    runtime = FakeRuntime({RUN: RunSpec(adapter="exec", exec=ExecSpec(argv=["sh", "-c", f"echo $$; {script}"]))})
    async with runtime.running(), control(runtime) as url:
        env = {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_test"}
        program = Program(home)
        async with program.started("worker", "start", "--adapter", "exec", env=env) as process:
            await runtime.until(lambda: runtime.logs[RUN].text.endswith(b"\n"), TIMEOUT_S)
            yield process, runtime, int(runtime.logs[RUN].text)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(TIMEOUT_S):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_the_first_signal_drains_and_says_goodbye(tmp_path: Path, number: signal.Signals) -> None:
    go = tmp_path / "go"
    async with worker(tmp_path, f"while ! [ -e {go} ]; do sleep .02; done") as (process, runtime, _):
        process.send_signal(number)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        go.touch()
        status, err = await ended(process)
    assert (status, runtime.said[-1]) == (Exit.OK, "goodbye")
    assert runtime.logs[RUN].finished
    assert err.splitlines() == ["Finishing what is at hand; once more stops at once.", "Stopped."]


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(STOP_SIGNALS, 2), (signal.SIGTERM,) * 2])
async def test_the_second_signal_ends_it_at_once_with_its_commands(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    """The command would go on for longer than the worker drains."""
    async with worker(tmp_path, "exec sleep 307") as (process, runtime, command):
        process.send_signal(first)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        assert alive(command)
        process.send_signal(second)
        status, err = await ended(process)
        await until_dead(command)
    assert status == Exit.INTERRUPTED
    assert err.splitlines() == ["Finishing what is at hand; once more stops at once."]
    assert "goodbye" not in runtime.said


@pytest.mark.parametrize("on_purpose", [True, False])
async def test_it_ends_with_the_local_stack_that_was_stopped(tmp_path: Path, on_purpose: bool) -> None:
    """A stack that went away without a word is waited for, in silence."""
    home, runtime = tmp_path / "stack", FakeRuntime({})
    home.mkdir()
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    async with runtime.running(), control(runtime) as url:
        ports = {"OA_CONTROL_HTTP_PORT": url.rpartition(":")[2]}
        write_state(home, StackState(mark, "ready", urls={"control": url}))
        command = ("worker", "start", "--adapter", "exec")
        started = Program(tmp_path, ports).started(*command, env={"OA_API_KEY": "oak_test"})
        process = await started.__aenter__()
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert (await process.stdout.readline()).startswith(b"attached as ")
    if on_purpose:
        remove_state(home)
    else:
        async with asyncio.timeout(TIMEOUT_S):
            assert (await process.stdout.readline()).startswith(b"not attached: ")
        process.send_signal(signal.SIGTERM)
    status, err = await ended(process)
    why = "The stack was stopped, and its worker ends with it."
    by_signal = "Finishing what is at hand; once more stops at once."
    assert status == Exit.OK
    assert err.splitlines() == [why if on_purpose else by_signal, "Stopped."]


def test_that_it_is_not_attached_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lost = Detached(Refusal("unavailable", "gone"), 100)
    view = _View(Output())
    for notice in (Attached("wrk_1", "a"), lost, lost, lost, Attached("wrk_1", "a"), Attached("wrk_1", "a")):
        view.show(notice)
    attached = "attached as wrk_1 at a"
    assert capsys.readouterr().out.splitlines() == [
        *(attached, "not attached: unavailable: gone; trying until it is", attached)
    ]
