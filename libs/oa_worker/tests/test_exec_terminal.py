"""A command that has a terminal: it is one in every respect, and all that holds of runs with pipes holds of it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import termios
from pathlib import Path
from typing import Any

import pytest

from oa_runlog.stdin import StdinPiece, piece_json
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.adapters.exec.environment import command_environment
from oa_worker.adapters.exec.outputs import Outputs
from oa_worker.adapters.exec.terminal import end_of_input
from oa_worker.sdk.adapter import Assignment
from oa_worker.sdk.limits import ExecLimits
from oa_worker.tests.commands import QUICK, Log, assignment, open_files, python, until_dead
from oa_worker.tests.inputs import END, Inputs
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import RunFinished, Terminal

SMALL = ExecLimits(terminate_grace_ms=300, leftover_grace_ms=300, pipe_buffer_bytes=16 * 1024)
QUIET = "import os, sys, termios; m = termios.tcgetattr(0); m[3] &= ~termios.ECHO; termios.tcsetattr(0, 0, m);"
"""What is typed from then on is not shown."""


def at_a_terminal(task: Assignment) -> Assignment:
    task.spec.exec.terminal.CopyFrom(Terminal(columns=132, rows=43))
    return task


async def run(task: Assignment, log: Log, limits: ExecLimits = QUICK) -> RunFinished:
    async with asyncio.timeout(PATIENCE_S):
        return await ExecAdapter(limits).run(at_a_terminal(task), log.emit)


async def until_shown(log: Log, text: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while text not in log.stdout:
            await asyncio.sleep(0.01)


async def test_its_files_are_one_terminal_of_the_size_and_control_its_session() -> None:
    code = """import os
print([os.isatty(fd) for fd in (0, 1, 2)], len({os.ttyname(fd) for fd in (0, 1, 2)}), tuple(os.get_terminal_size()))
print(os.getsid(0) == os.getpgrp() == os.getpid() == os.tcgetpgrp(0), open('/dev/tty').isatty())"""
    log = Log()
    finish = await run(assignment(*python(code)), log)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert log.stdout == b"[True, True, True] 1 (132, 43)\r\nTrue True\r\n"


async def test_all_that_it_shows_is_one_stream_of_bytes() -> None:
    code = "import os; os.system('stty -opost'); os.write(1, b'out\\n'); os.write(2, bytes(range(256)))"
    log = Log()
    finish = await run(assignment(*python(code)), log)
    assert (log.stdout, log.stderr) == (b"out\n" + bytes(range(256)), b"")
    assert (finish.exec.exit_code, finish.exec.stdout_bytes, finish.exec.stderr_bytes) == (0, 260, 0)


@pytest.mark.parametrize(
    ("script", "reason", "code", "number"),
    [("exit 7", "nonzero_exit", 7, 0), ("kill -SEGV $$", "killed_by_signal", 0, signal.SIGSEGV)],
)
async def test_it_ends_as_with_pipes(script: str, reason: str, code: int, number: int) -> None:
    finish = await run(assignment("sh", "-c", script), Log())
    assert (finish.reason, finish.exec.exit_code, finish.exec.signal) == (reason, code, number)


async def test_what_can_not_be_started_and_what_does_leave_no_file_open() -> None:
    before = open_files()
    for _ in range(5):
        assert (await run(assignment("no-such-command-anywhere"), Log())).reason == "command_not_found"
        assert (await run(Inputs('"a"', END).assignment("cat"), Log())).exec.exit_code == 0
    await asyncio.sleep(0)
    assert open_files() <= before


async def test_a_machine_without_terminals_is_not_taken_for_one_without_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left() -> tuple[int, int]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "openpty", none_left)
    finish = await run(assignment("true"), Log())
    assert finish.reason == "command_not_started"
    assert "the machine has no terminal to give" in finish.message


def test_its_environment_is_as_ever_but_for_what_is_said_of_another_terminal() -> None:
    worker = {"PATH": "/bin", "OA_API_KEY": "s3cret", "TERM": "dumb", "COLUMNS": "9", "LINES": "9", "COLORTERM": "no"}
    assert command_environment(worker, {}, has_terminal=True) == {"PATH": "/bin", "TERM": "xterm-256color"}
    assert command_environment(worker, {"TERM": "vt100", "LINES": "5"}, has_terminal=True) == {
        "PATH": "/bin", "TERM": "vt100", "LINES": "5",
    }  # fmt: skip
    assert command_environment(worker, {})["TERM"] == "dumb"


# --------------------------------------------------------------------------------------------------------- size

WATCHES = """import os, signal, sys
def show(*_): print(*os.get_terminal_size(0), flush=True)
signal.signal(signal.SIGWINCH, show)
show()
while True: signal.pause()"""
"""Shows the size of its terminal: at first, and whenever it is told of another."""


@pytest.mark.parametrize("stdin", [True, False])
async def test_another_size_is_told_to_the_command_with_and_without_somebody_who_types(stdin: bool) -> None:
    log, inputs = Log(), Inputs()
    task = inputs.assignment(*python(WATCHES))
    task.spec.exec.stdin = stdin
    running = asyncio.create_task(run(task, log))
    await until_shown(log, b"132 43\r\n")
    inputs.say(piece_json(StdinPiece(b"", size=(91, 33))))
    await until_shown(log, b"91 33\r\n")
    if stdin:
        inputs.say(END)
    inputs.say(piece_json(StdinPiece(b"", size=(1000, 1))))
    await until_shown(log, b"1000 1\r\n")
    task.cancel.request("enough", 0)
    assert (await running).outcome == event_pb2.RUN_OUTCOME_CANCELED


async def test_a_new_attempt_has_the_newest_size() -> None:
    log, inputs = Log(), Inputs(*(piece_json(StdinPiece(b"", size=size)) for size in ((9, 9), (91, 33))))
    running = asyncio.create_task(run(task := inputs.assignment(*python(WATCHES)), log))
    await until_shown(log, b"91 33\r\n")
    task.cancel.request("enough", 0)
    await running


# ------------------------------------------------------------------------------------------------------- typing


async def test_what_is_said_is_typed_in_order_and_shown_as_it_is_typed() -> None:
    log = Log()
    running = asyncio.create_task(run((inputs := Inputs()).assignment(*python("print(input(), input())")), log))
    inputs.say('"one"')
    inputs.say('{"text":"tw"}')
    inputs.say('{"text":"o\\n"}')
    assert (await running).exec.exit_code == 0
    assert log.stdout == b"one\r\ntwo\r\none two\r\n"


@pytest.mark.parametrize("last", ['"line"', '{"text":"half a line"}', '{"text":""}'])
async def test_the_end_is_read_after_a_line_and_within_one(last: str) -> None:
    log, inputs = Log(), Inputs()
    code = QUIET + "print('ready'); print([sys.stdin.buffer.read()])"
    running = asyncio.create_task(run(inputs.assignment(*python(code)), log))
    await until_shown(log, b"ready")
    inputs.say(last)
    inputs.say(END)
    assert (await running).exec.exit_code == 0
    said = {'"line"': b"line\n", '{"text":"half a line"}': b"half a line", '{"text":""}': b""}[last]
    assert log.stdout == f"ready\r\n{[said]}\r\n".encode()


async def test_at_the_beginning_of_a_line_one_end_is_typed_and_no_other_for_who_reads_next() -> None:
    log, inputs = Log(), Inputs()
    code = (
        QUIET
        + """import select; print('ready'); print(os.read(0, 99), os.read(0, 99))
print(select.select([0], [], [], 0.3)[0])"""
    )
    running = asyncio.create_task(run(inputs.assignment(*python(code)), log))
    await until_shown(log, b"ready")
    inputs.say('{"text":"line\\n","end":true}')
    assert (await running).exec.exit_code == 0
    assert log.stdout == b"ready\r\nb'line\\n' b''\r\n[]\r\n"


async def test_a_program_that_takes_every_byte_gets_them_all_and_one_end() -> None:
    log, inputs = Log(), Inputs()
    code = "import os, tty; tty.setraw(0); print('ready')\ndata = b''\n"
    code += "while b'\\4' not in data: data += os.read(0, 99)\nprint(data)"
    running = asyncio.create_task(run(inputs.assignment(*python(code)), log))
    await until_shown(log, b"ready")
    inputs.say('{"base64":"AAP/DQ=="}')
    inputs.say(END)
    assert (await running).exec.exit_code == 0
    assert log.stdout.endswith(b"b'\\x00\\x03\\xff\\r\\x04'\n")


async def test_without_inputs_it_reads_an_end() -> None:
    log = Log()
    assert (await run(assignment("cat"), log)).exec.exit_code == 0
    assert log.stdout == b""


async def test_an_interrupt_that_is_typed_ends_it() -> None:
    log, inputs = Log(), Inputs()
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready'); time.sleep(600)"
    running = asyncio.create_task(run(inputs.assignment(*python(code)), log))
    await until_shown(log, b"ready")
    inputs.say('{"text":"\\u0003"}')
    finish = await running
    assert (finish.reason, finish.exec.signal) == ("killed_by_signal", signal.SIGINT)


async def test_many_lines_arrive_as_they_are() -> None:
    log, inputs = Log(), Inputs()
    data = b"".join(b"%d %s\n" % (number, b"x" * (number % 200)) for number in range(6_000))
    code = QUIET + "import hashlib; print('ready'); print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    running = asyncio.create_task(run(inputs.assignment(*python(code)), log))
    await until_shown(log, b"ready")
    for at in range(0, len(data), 50_001):
        inputs.say(piece_json(StdinPiece(data[at : at + 50_001])))
    inputs.say(END)
    assert (await running).exec.exit_code == 0
    assert log.stdout.split()[-1].decode() == hashlib.sha256(data).hexdigest()


async def test_of_what_it_does_not_read_little_is_kept_and_it_is_canceled_as_any() -> None:
    inputs = Inputs(*(piece_json(StdinPiece(b"line\n" * 20_000)) for _ in range(100)))
    task, log = inputs.assignment(*python(QUIET + "import time; print('busy'); time.sleep(600)")), Log()
    running = asyncio.create_task(run(task, log))
    await until_shown(log, b"busy")
    task.cancel.request("enough", 0)
    assert (await running).outcome == event_pb2.RUN_OUTCOME_CANCELED
    assert inputs.read_up_to <= 3, "the terminal and the buffer are full; the rest stays in the log"


def mode(*, edited: bool = True, newline: bool = True, end: bytes = b"\x04") -> list[Any]:
    """A terminal's mode. `edited`: lines are. `newline`: a carriage return becomes one."""
    characters = [b"\0"] * 32
    characters[termios.VEOF], characters[termios.VINTR], characters[termios.VKILL] = end, b"\x03", b"\x15"
    return [termios.ICRNL if newline else 0, 0, 0, termios.ICANON if edited else 0, 0, 0, characters]


@pytest.mark.parametrize(
    ("last", "now", "typed"),
    [
        (b"\n", mode(), b"\x04"),
        (b"a", mode(), b"\x04\x04"),
        (b"\0", mode(), b"\x04\x04"),
        (b"\r", mode(), b"\x04"),
        (b"\r", mode(newline=False), b"\x04\x04"),
        *((last, mode(), b"\x04") for last in (b"\x03", b"\x04", b"\x15")),
        *((last, mode(edited=False), b"\x04") for last in (b"\n", b"a", b"\x04")),
        (b"a", mode(end=b"Z"), b"ZZ"),
        (b"a", mode(end=b"\0"), b"\x04\x04"),
    ],
)
def test_what_is_typed_for_an_end(last: bytes, now: list[Any], typed: bytes) -> None:
    assert end_of_input(last, now) == typed


# ------------------------------------------------------------------------------------------------------- its end


async def test_output_waits_for_the_log_in_bounded_memory_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    most, read = 0, Outputs.read

    async def watched(self: Outputs) -> tuple[int, bytes] | None:
        nonlocal most
        most = max(most, self.buffered_bytes)
        return await read(self)

    monkeypatch.setattr(Outputs, "read", watched)
    log, size = Log(delay_s=0.001), 1_000_000
    code = f"import sys; sys.stdout.buffer.write(b'x' * {size} + b'end'); sys.stdout.flush()"
    finish = await run(assignment(*python(code)), log, SMALL)
    assert finish.exec.stdout_bytes == len(log.stdout) == size + 3
    assert log.stdout.endswith(b"xend")
    assert 0 < most <= SMALL.pipe_buffer_bytes + 256 * 1024  # what asyncio reads at most in one go


async def test_a_command_that_closes_its_files_may_open_the_terminal_again() -> None:
    log = Log()
    finish = await run(assignment("sh", "-c", "exec <&- >&- 2>&-; sleep .3; echo late > /dev/tty"), log)
    assert (finish.exec.exit_code, log.stdout) == (0, b"late\r\n")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 307 & echo $! > {pid}; echo done",
        "(trap '' HUP; sleep 307 & echo $! > {pid}); echo done",
        "setsid sh -c 'echo $$ > {pid}; exec sleep 307' & until [ -s {pid} ]; do :; done; echo done",
        "(trap '' HUP TERM; setsid sh -c 'sleep 307 & echo $! > {pid}' &); until [ -s {pid} ]; do :; done; echo done",
    ],
    ids=["group", "deaf-to-its-end", "session", "daemon"],
)
async def test_what_it_leaves_ends_with_it(tmp_path: Path, script: str) -> None:
    pid_file, log = tmp_path / "pid", Log()
    finish = await run(assignment("sh", "-c", script.format(pid=pid_file)), log)
    assert (finish.exec.exit_code, log.stdout) == (0, b"done\r\n")
    await until_dead(int(pid_file.read_text()))


async def test_a_cancel_and_a_deadline_end_it_whatever_it_heeds() -> None:
    log = Log()
    deaf = "trap '' TERM HUP INT; echo ready; while :; do sleep .1; done"
    canceled = assignment("sh", "-c", deaf)
    running = asyncio.create_task(run(canceled, log))
    await until_shown(log, b"ready")
    canceled.cancel.request("enough", 0)
    finish = await running
    assert (finish.outcome, finish.exec.signal) == (event_pb2.RUN_OUTCOME_CANCELED, signal.SIGKILL)
    assert (await run(assignment("sh", "-c", deaf, timeout_ms=200), Log())).reason == "timeout"


async def test_it_is_asked_to_end_before_it_is_killed() -> None:
    log = Log()
    code = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep .05; done"
    task = assignment("sh", "-c", code)
    running = asyncio.create_task(run(task, log, ExecLimits(terminate_grace_ms=60_000)))
    await until_shown(log, b"ready")
    task.cancel.request("enough", 0)
    finish = await running
    assert (finish.outcome, finish.exec.exit_code) == (event_pb2.RUN_OUTCOME_CANCELED, 5)
    assert log.stdout.endswith(b"bye\r\n")


async def test_one_that_kills_its_warden_is_ended_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    once_it_is_told = "read nothing"  # the end of its input comes after the warden has told that it has started
    script = f"echo $$ > {pid_file}; {once_it_is_told}; kill -9 $PPID; sleep 600"
    finish = await run(assignment("sh", "-c", script), Log())
    assert finish.reason == "supervisor_lost"
    await until_dead(int(pid_file.read_text()))
