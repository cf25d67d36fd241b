"""What a run started is gone when the run has ended, whatever it did to get away. With real processes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.adapters.exec.outputs import Outputs
from oa_worker.adapters.exec.process import Process
from oa_worker.adapters.exec.warden import parents_first
from oa_worker.sdk.limits import ExecLimits
from oa_worker.tests.commands import QUICK, Log, alive, assignment, python, run, until_dead
from openagents.runtime.v1 import event_pb2

WRITES_FOR_EVER = "i=0; while :; do i=$((i+1)); echo $i; sleep .05; done"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is only the process group")
FAR_OFF = ExecLimits(terminate_grace_ms=300, leftover_grace_ms=600_000)
"""Whoever waits for this grace has failed: the test's own limit comes first."""


async def until_written(path: Path) -> int:
    """The number that a command writes into a file, once it is there whole."""

    def written() -> str:
        return path.read_text() if path.exists() else ""

    async with asyncio.timeout(PATIENCE_S):
        while not written().endswith("\n"):
            await asyncio.sleep(0.02)
    return int(written())


def detached(pid_file: Path, script: str) -> str:
    """Shell words that start `script` in a session of its own; its pid is in the file before they return."""
    return f"setsid sh -c 'echo $$ > {pid_file}; {script}' & while ! [ -s {pid_file} ]; do sleep .02; done; "


@pytest.mark.parametrize(
    "script",
    [
        "sleep 307 & echo $! > {pid}; echo done",
        "setsid sleep 307 & echo $! > {pid}; echo done",
        "setsid sleep 307 >/dev/null 2>&1 & echo $! > {pid}; echo done",
        "env -i $(command -v setsid) sh -c 'setsid sleep 307 & echo $! > {pid}'; echo done",
        '(trap "" TERM HUP; setsid sleep 307 & echo $! > {pid}); echo done',
    ],
    ids=["group", "session", "silent", "cleaned-and-orphaned", "deaf"],
)
@LINUX
async def test_what_a_command_leaves_ends_with_it(tmp_path: Path, script: str) -> None:
    pid_file, log = tmp_path / "pid", Log()
    finish = await run("sh", "-c", script.format(pid=pid_file), log=log)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert log.stdout == b"done\n"
    assert not alive(int(pid_file.read_text()))


@LINUX
async def test_a_detached_writer_does_not_hold_the_run_of_a_command_that_has_ended(tmp_path: Path) -> None:
    pid_file, log = tmp_path / "pid", Log()
    finish = await run("sh", "-c", detached(pid_file, WRITES_FOR_EVER) + "echo done", log=log)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert b"done\n" in log.stdout
    assert not alive(int(pid_file.read_text()))


@LINUX
async def test_the_deadline_holds_while_a_detached_process_writes(tmp_path: Path) -> None:
    """Of a command that goes on: the run is timed out. Of one that ended in time: its leftovers have no longer."""
    goes_on, ended = tmp_path / "goes-on", tmp_path / "ended"
    timed_out = await run("sh", "-c", detached(goes_on, WRITES_FOR_EVER) + "wait", limits=FAR_OFF, timeout_ms=1000)
    in_time = await run("sh", "-c", detached(ended, WRITES_FOR_EVER) + "exit 3", limits=FAR_OFF, timeout_ms=3000)
    assert (timed_out.outcome, timed_out.reason) == (event_pb2.RUN_OUTCOME_FAILED, "timeout")
    assert in_time.reason in {"nonzero_exit", "timeout"}  # the latter on a machine that took so long to get there
    for file in (goes_on, ended):
        assert not file.exists() or not alive(int(file.read_text()))


@LINUX
async def test_a_cancel_while_leftovers_write_is_a_cancel(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = assignment("sh", "-c", detached(pid_file, WRITES_FOR_EVER) + "echo done")
    log = Log()
    running = asyncio.create_task(ExecAdapter(FAR_OFF).run(task, log.emit))
    async with asyncio.timeout(PATIENCE_S):
        while b"done\n" not in log.stdout:
            await asyncio.sleep(0.02)
    task.cancel.request("enough", 0)
    finish = await running
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_CANCELED, "canceled")
    assert not alive(int(pid_file.read_text()))


@LINUX
async def test_what_forks_faster_than_it_can_be_killed_is_ended(tmp_path: Path) -> None:
    """Hares: each is always a new process in a new session, deaf to SIGTERM, and its parent is gone."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        f"        here = os.open({str(tmp_path / 'last')!r}, os.O_WRONLY | os.O_CREAT)\n"
        "        while True:\n"
        "            os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "            os.pwrite(here, b'%10d' % os.getpid(), 0)\n"
        "            if os.fork(): os._exit(0)\n"
        "print('started')\n"
    )
    patient = ExecLimits(terminate_grace_ms=300, leftover_grace_ms=300, kill_timeout_ms=90_000)
    finish = await run(*python(code), limits=patient)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    once = (tmp_path / "last").read_bytes()
    await asyncio.sleep(0.2)
    assert (tmp_path / "last").read_bytes() == once
    assert not alive(int(once))


@LINUX
async def test_runs_end_nothing_of_each_other(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    adapter, first, second = ExecAdapter(QUICK), Log(), Log()
    going_on = assignment("sh", "-c", detached(other, "exec sleep 307") + "echo up; exec sleep 307")
    task = asyncio.create_task(adapter.run(going_on, second.emit))
    await second.first.wait()
    await adapter.run(assignment("sh", "-c", detached(mine, "exec sleep 307") + "echo done"), first.emit)
    assert not alive(int(mine.read_text()))
    assert alive(int(other.read_text()))
    going_on.cancel.request("enough", 0)
    await task
    assert not alive(int(other.read_text()))


@LINUX
async def test_what_can_not_be_ended_is_given_up_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No time to kill: whatever is deaf to SIGTERM is left, and still holds the pipe."""
    pid_file = tmp_path / "pid"
    limits = ExecLimits(terminate_grace_ms=50, leftover_grace_ms=50, kill_timeout_ms=0)
    script = f"trap '' TERM; setsid sleep 307 & echo $! > {pid_file}; echo done"
    with caplog.at_level(logging.WARNING, "oa_worker"):
        finish = await run("sh", "-c", script, limits=limits)
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert "1 processes could not be ended" in caplog.text


@LINUX
async def test_a_writer_outside_the_run_does_not_hold_it_up(tmp_path: Path) -> None:
    """It was given the pipe, as over a socket; it is not the run's, and lives on."""
    limits = ExecLimits(terminate_grace_ms=300, leftover_grace_ms=600_000, foreign_output_bytes=100_000)
    log = Log()
    script = f"echo $$; while ! [ -e {tmp_path / 'end'} ]; do sleep .02; done"
    running = asyncio.create_task(ExecAdapter(limits).run(assignment("sh", "-c", script), log.emit))
    await log.first.wait()
    pipe = os.open(f"/proc/{int(log.stdout)}/fd/1", os.O_WRONLY)
    error = os.open(f"/proc/{int(log.stdout)}/fd/2", os.O_WRONLY)
    os.close(error)
    (tmp_path / "end").touch()

    def write() -> None:
        try:
            while True:
                os.write(pipe, b"x" * 1000)
        except BrokenPipeError:
            os.close(pipe)

    writer = threading.Thread(target=write)
    writer.start()
    finish = await running
    await asyncio.to_thread(writer.join)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED


@LINUX
async def test_a_warden_that_is_killed_takes_the_command_with_it() -> None:
    log = Log()
    running = asyncio.create_task(ExecAdapter(QUICK).run(assignment("sh", "-c", "echo $PPID $$; sleep 307"), log.emit))
    await log.first.wait()
    warden, command = map(int, log.stdout.split())
    os.kill(warden, signal.SIGKILL)
    finish = await running
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, "supervisor_lost")
    await until_dead(command)


def test_a_loop_that_ends_ends_the_command(tmp_path: Path) -> None:
    """It cancels all tasks at once, the one that hears the warden too."""
    pid_file = tmp_path / "pid"

    async def run_for_ever(started: asyncio.Event) -> None:
        script = f"echo $$ > {pid_file}; sleep 307"
        process = await Process.start(["sh", "-c", script], cwd=None, env={"PATH": os.environ["PATH"]}, limits=QUICK)
        try:
            started.set()
            await process.exited.wait()
        finally:
            await process.close()

    async def main() -> int:
        started = asyncio.Event()
        running = asyncio.create_task(run_for_ever(started))
        await started.wait()
        assert not running.done()
        return await until_written(pid_file)

    asyncio.run(until_dead(asyncio.run(main())))


async def test_without_a_subreaper_the_process_group_ends(tmp_path: Path) -> None:
    """As on macOS."""
    pid_file = tmp_path / "pid"
    script = f"trap '' TERM; sleep 307 & echo $! > {pid_file}"
    process = await Process.start(
        ["sh", "-c", script], cwd=None, env={"PATH": os.environ["PATH"]}, limits=QUICK, all_below=False
    )
    await process.exited.wait()
    pid = await until_written(pid_file)
    assert not process.gone.is_set()
    await process.end(0.05)
    await process.close()
    assert process.returncode == 0
    await until_dead(pid)


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_worker_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Silent processes, which no broken pipe would end; and a command that has cleaned up nothing."""
    command_file, left_file = tmp_path / "command", tmp_path / "left"
    script = detached(left_file, "exec sleep 307") + f"echo $$ > {command_file}; exec sleep 307"
    code = (
        "import asyncio, sys\n"
        "from oa_worker.tests.test_exec import ExecAdapter, Log, assignment\n"
        "asyncio.run(ExecAdapter().run(assignment('sh', '-c', sys.argv[1]), Log().emit))"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    worker = await asyncio.create_subprocess_exec(*python(code), script, env={**os.environ, "PYTHONPATH": path})
    pids = [await until_written(command_file), await until_written(left_file)]
    assert all(alive(pid) for pid in pids)
    worker.send_signal(number)
    await worker.wait()
    for pid in pids:
        await until_dead(pid)


async def test_a_command_hears_signals_as_its_worker_does() -> None:
    """What the worker ignores (`nohup`) is ignored, and nothing else: the warden's own deafness is not inherited."""
    code = "import signal\nprint(*(int(signal.getsignal(n) == signal.SIG_IGN) for n in (1, 2, 3, 15)), flush=True)"
    log = Log()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        await run(sys.executable, "-c", code, log=log)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert log.stdout == b"1 0 0 0\n"


async def test_a_file_stays_open_until_all_is_gone_and_only_for_the_warden(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    kept = os.open(tmp_path / "kept", os.O_RDWR)
    fcntl.flock(kept, fcntl.LOCK_EX)
    shows = f"[ -e /dev/fd/{kept} ] && echo open || echo closed; exec sleep 307"
    async with asyncio.timeout(PATIENCE_S):
        command = ("sh", "-c", shows)
        process = await Process.start(command, cwd=None, env=dict(os.environ), limits=QUICK, kept=kept)
        os.close(kept)
        try:
            assert await process.outputs.read() == (1, b"closed\n")
            assert not may_be_locked(tmp_path / "kept")
        finally:
            await process.close()
    assert may_be_locked(tmp_path / "kept")


def may_be_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@given(st.dictionaries(st.integers(2, 12), st.integers(1, 12), max_size=11))
def test_whoever_is_ended_is_told_after_its_parent(parents: dict[int, int]) -> None:
    def in_a_circle(pid: int) -> bool:
        above = pid
        for _ in parents:
            above = parents.get(above, 0)
        return above in parents

    order = parents_first(parents)
    assert sorted(order) == sorted(parents), "everybody is told, once"
    for pid, parent in parents.items():
        if parent in parents and not in_a_circle(pid):
            assert order.index(parent) < order.index(pid)


async def test_who_writes_slowly_is_waited_for_no_longer_than_who_writes_nothing() -> None:
    outputs = Outputs(1 << 20)

    async def writing() -> None:
        while True:
            outputs.pipe_data_received(1, b"still here\n")
            await asyncio.sleep(0.01)

    writer = asyncio.create_task(writing())
    outputs.last_call(0.05, 1 << 30)
    async with asyncio.timeout(PATIENCE_S):
        while await outputs.read() is not None:
            pass
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
