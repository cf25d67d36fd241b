"""Standard input of `oa` and `oa run send` as that of a command, through the whole stack."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_testing.stack import StackUnderTest


async def test_standard_input_reaches_the_command(stack: StackUnderTest, tmp_path: Path) -> None:
    program = Program.of_a_person(tmp_path, stack)
    assert (await program("login", "--dev", "--email", "ann@example.org")).status == Exit.OK
    async with program.started("worker", "start", "--adapter", "exec") as process:
        await _a_pipe(program)
        await _a_large_file(program, tmp_path)
        await _a_command_that_reads_little(program)
        await _lines_that_are_sent(program)
        await _a_command_without(program)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == Exit.OK


async def _a_pipe(program: Program) -> None:
    done = await program.in_shell('echo hi | "$@"', "run", "start", "--stdin", "--", "cat")
    assert (done.status, done.stdout) == (Exit.OK, b"hi\n"), done.stderr
    assert "writes 3 bytes to the command" in done.stderr
    empty = await program.in_shell('"$@" < /dev/null', "run", "start", "--stdin", "--", "wc", "-c")
    assert (empty.status, empty.stdout.strip()) == (Exit.OK, b"0")


async def _a_large_file(program: Program, home: Path) -> None:
    """One line of ten megabytes, with everything in it that a byte can be but a line feed."""
    data = os.urandom(10_000_000).replace(b"\n", b"\0") + b"\n"
    (home / "line").write_bytes(data)
    done = await program.in_shell('cat line | "$@"', "run", "start", "--stdin", "--", "sha256sum")
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def _a_command_that_reads_little(program: Program) -> None:
    """Its input never ends; the run does, and so does `oa`."""
    async with program.started("run", "start", "--stdin", "--", "head", "-n", "1") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\ntwo\n")
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == Exit.OK
            assert await process.stdout.read() == b"one\n"


async def _lines_that_are_sent(program: Program) -> None:
    started = await program("run", "start", "--stdin", "--detach", "--", "cat")
    run_id = started.stdout.decode().strip()
    for text in ("Grüße", "two"):
        assert (await program("run", "send", run_id, text)).status == Exit.OK
    wrong = await program("run", "send", run_id, "--input", "17")
    assert "send a string, which is a line" in wrong.stderr
    assert (await program("run", "send", run_id, "--end")).status == Exit.OK
    tail = await program("run", "tail", run_id, "--from-start")
    assert (tail.status, tail.stdout.decode()) == (Exit.OK, "Grüße\ntwo\n")


async def _a_command_without(program: Program) -> None:
    run_id = (await program("run", "start", "--detach", "--", "sleep", "600")).stdout.decode().strip()
    refused = await program("run", "send", run_id, "hello")
    assert "start it with spec.exec.stdin (oa run start --stdin)" in refused.stderr
    assert (await program("run", "cancel", run_id)).status == Exit.OK
