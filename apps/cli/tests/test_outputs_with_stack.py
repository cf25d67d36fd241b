"""Outputs that are closed, full, or read by nobody, while runs are started, followed and executed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Done, Program
from oa_testing.stack import StackUnderTest

pytestmark = pytest.mark.long
UNTIL_TOLD = ("sh", "-c", 'while [ ! -e "$1" ]; do echo again; sleep 0.05; done', "sh")


async def test_runs_go_on_whoever_looks(stack: StackUnderTest, tmp_path: Path) -> None:
    program = Program.of_a_person(tmp_path, stack)
    assert (await program("login", "--dev", "--email", "ann@example.org")).status == Exit.OK
    worker = program.started_in_shell('exec "$@" >/dev/full 2>&-', "worker", "start", "--adapter", "exec")
    async with worker as process:
        await _a_reader_who_has_enough(program, tmp_path)
        await _a_full_disk(program, tmp_path)
        await _no_stderr(program)
        await _lists(program)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == Exit.OK, "its lines are not what a worker is there for"


def _run_id(done: Done) -> str:
    return next(word for word in done.stderr.split() if word.startswith("run_"))


async def _ends(program: Program, file: str, run_id: str) -> None:
    """The run went on; now it ends."""
    assert (await program("run", "show", run_id)).stdout.count(b"running") == 1
    (program._home / file).touch()
    assert (await program("run", "tail", run_id)).status == Exit.OK


async def _a_reader_who_has_enough(program: Program, home: Path) -> None:
    script = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    done = await program.in_shell(script, "run", "start", "--title", "你", "--", *UNTIL_TOLD, str(home / "first"))
    assert (done.status, done.stdout) == (Exit.OK, b"again\n")
    assert "output_lost" not in done.stderr
    await _ends(program, "first", _run_id(done))


async def _a_full_disk(program: Program, home: Path) -> None:
    done = await program.in_shell('"$@" >/dev/full', "run", "start", "--", *UNTIL_TOLD, str(home / "second"))
    assert done.status == Exit.OUTPUT_LOST
    assert done.stderr.count("output_lost: standard output can't be written: No space left on device;") == 1
    await _ends(program, "second", _run_id(done))
    detached = await program.in_shell('"$@" >&-', "run", "start", "--detach", "--title", "unseen", "--", "true")
    assert detached.status == Exit.OUTPUT_LOST
    assert detached.stderr.startswith("output_lost: standard output is closed;")


async def _no_stderr(program: Program) -> None:
    done = await program.in_shell('"$@" 2>&-', "run", "start", "--", "sh", "-c", "echo err >&2; echo out; exit 3")
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", "")


async def _lists(program: Program) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while len((await program("run", "list", "--json")).documents) < 4:
            await asyncio.sleep(0.1)
    for arguments in (("run", "list"), ("run", "list", "--json")):
        headed = await program.in_shell('"$@" | head -1; exit ${PIPESTATUS[0]}', *arguments)
        assert (headed.status, headed.stdout.count(b"\n"), headed.stderr) == (Exit.OK, 1, "")
        full = await program.in_shell('"$@" >/dev/full', *arguments)
        assert (full.status, full.stderr.count("\n")) == (Exit.OUTPUT_LOST, 1)
    assert "No such run." in (await program("run", "list", "--status", "canceling")).stderr
    latin = {"PYTHONIOENCODING": "latin-1"}
    assert rb"\u4f60" in (await program.in_shell('"$@"', "run", "list", env=latin)).stdout
    titles = [each["title"] for each in (await program("run", "list", "--json", env=latin)).documents]
    assert {"你", "unseen"} <= set(titles)
