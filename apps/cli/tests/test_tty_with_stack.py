"""`oa run start --tty` through the whole stack, piped and at a terminal."""

from __future__ import annotations

import asyncio
import os
import select
import shlex
import signal
import sys
import termios
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_testing.stack import StackUnderTest

SPAWN = """import os, pty, sys
sized = ["bash", "-c", 'stty cols 91 rows 33; "$@"', "bash", *sys.argv[1:]]
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sized)))"""
"""A program at a terminal of its own, which it shows on its standard output."""
AT_A_TERMINAL = f'{sys.executable} -c {shlex.quote(SPAWN)} "$@"'


@pytest.mark.long
async def test_a_command_at_a_terminal(stack: StackUnderTest, tmp_path: Path) -> None:
    program = Program.of_a_person(tmp_path, stack)
    assert (await program("login", "--dev", "--email", "ann@example.org")).status == Exit.OK
    async with program.started("worker", "start", "--adapter", "exec") as process:
        await _piped(program)
        await _at_a_terminal(program)
        await _typed(program)
        await _sent(program)
        await _a_person(program)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            await _killed(program, number)
        await _hung_up(program)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == Exit.OK


async def _piped(program: Program) -> None:
    """There is no terminal to be like; the bytes are exact, and so is the exit code."""
    script = "stty size; echo to-stderr >&2; printf '\\033[2J'; exit 7"
    done = await program("run", "start", "--tty", "--", "sh", "-c", script)
    assert (done.status, done.stdout) == (7, b"24 80\r\nto-stderr\r\n\x1b[2J"), done.stderr


async def _at_a_terminal(program: Program) -> None:
    """The terminal of the command is as large as ours, and does not drive ours."""
    script = "stty size; printf '\\033[2J\\033]0;pwned\\007'; exit 7"
    done = await program.in_shell(AT_A_TERMINAL, "run", "start", "-t", "--", "sh", "-c", script)
    assert done.status == 7, done.stdout
    assert b"33 91" in done.stdout
    assert rb"\x1b[2J\x1b]0;pwned\x07" in done.stdout
    assert b"\x1b[2J" not in done.stdout
    shown = await program.in_shell(AT_A_TERMINAL, "run", "tail", "--from-start", "latest")
    assert rb"\x1b[2J" in shown.stdout
    assert b"\x1b[2J" not in shown.stdout
    raw = await program.in_shell(AT_A_TERMINAL, "run", "tail", "--raw", "--from-start", "latest")
    assert b"\x1b[2J\x1b]0;pwned\x07" in raw.stdout


async def _typed(program: Program) -> None:
    done = await program.in_shell('printf "hi\\nho" | "$@"', "run", "start", "--tty", "--stdin", "--", "cat")
    assert done.status == Exit.OK, done.stderr
    assert sorted(done.stdout.replace(b"\r\n", b"\n").replace(b"ho", b"ho\n").split()) == [b"hi", b"hi", b"ho", b"ho"]


async def _sent(program: Program) -> None:
    started = await program("run", "start", "--tty", "--stdin", "--detach", "--", "cat")
    run_id = started.stdout.decode().strip()
    assert (await program("run", "send", run_id, "Grüße")).status == Exit.OK
    assert (await program("run", "send", run_id, "--end")).status == Exit.OK
    tail = await program("run", "tail", run_id, "--from-start")
    assert (tail.status, tail.stdout.decode()) == (Exit.OK, "Grüße\r\nGrüße\r\n")


SHOWS = """import os, signal, sys, tty
def show(*_): print(*os.get_terminal_size(0), flush=True)
signal.signal(signal.SIGWINCH, show)
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
show()
while True:
    line = input()
    print("read", line, flush=True)"""


async def _a_person(program: Program) -> None:
    """Keys go to the command, Ctrl-C too; the window gets another size; Ctrl-] leaves, and the run goes on."""
    ours, theirs = os.openpty()
    try:
        termios.tcsetwinsize(theirs, (33, 91))
        before = termios.tcgetattr(theirs)
        arguments = ("run", "start", "-t", "--stdin", "--", sys.executable, "-c", SHOWS)
        async with program.at_terminal(theirs, *arguments) as process:
            shown = Shown(ours)
            await shown.until(b"91 33")
            termios.tcsetwinsize(theirs, (44, 101))
            process.send_signal(signal.SIGWINCH)
            await shown.until(b"101 44")
            os.write(ours, b"\x03")
            await shown.until(b"interrupted")
            os.write(ours, b"hello\r")
            await shown.until(b"read hello")
            os.write(ours, b"\x1d")
            async with asyncio.timeout(TIMEOUT_S):
                assert await process.wait() == Exit.INTERRUPTED
            await shown.until(b"the run goes on")
        assert termios.tcgetattr(theirs) == before
        assert (await program("run", "cancel", "latest")).status == Exit.OK
    finally:
        os.close(ours)
        os.close(theirs)


async def _killed(program: Program, number: signal.Signals) -> None:
    """Whoever ends `oa` has a terminal as it was, and the run goes on."""
    ours, theirs = os.openpty()
    try:
        before = termios.tcgetattr(theirs)
        async with program.at_terminal(theirs, "run", "start", "-t", "--stdin", "--", "cat") as process:
            shown = Shown(ours)
            await shown.until(b"Every key goes to the command")
            os.write(ours, b"hello\r")
            await shown.until(b"hello")
            assert not termios.tcgetattr(theirs)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            process.send_signal(number)
            async with asyncio.timeout(TIMEOUT_S):
                assert await process.wait() == Exit.INTERRUPTED, number
            await shown.until(b"the run goes on")
        assert termios.tcgetattr(theirs) == before, number
        assert (await program("run", "cancel", "latest")).status == Exit.OK
    finally:
        os.close(ours)
        os.close(theirs)


async def _hung_up(program: Program) -> None:
    """The window is closed: there is no terminal to put in order, and `oa` ends all the same."""
    ours, theirs = os.openpty()
    async with program.at_terminal(theirs, "run", "start", "-t", "--stdin", "--", "cat") as process:
        os.close(theirs)
        await Shown(ours).until(b"Every key goes to the command")
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() != 0
    assert (await program("run", "cancel", "latest")).status == Exit.OK


class Shown:
    """What a terminal has shown so far."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._text = b""

    async def until(self, text: bytes) -> None:
        """Wait for it, and forget what came before."""
        async with asyncio.timeout(TIMEOUT_S):
            while text not in self._text:
                self._text += await asyncio.to_thread(self._more)
        self._text = self._text.partition(text)[2]

    def _more(self) -> bytes:
        ready, _, _ = select.select([self._fd], [], [], 0.5)
        return os.read(self._fd, 65536) if ready else b""
