"""The exec adapter, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.adapters.exec.environment import command_environment
from oa_worker.adapters.exec.process import Process
from oa_worker.sdk.limits import ExecLimits
from oa_worker.tests.commands import QUICK, Log, assignment, open_files, python, run, until_dead
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import EventBody

PATIENT = ExecLimits(terminate_grace_ms=60_000, leftover_grace_ms=300)
"""For commands that heed SIGTERM, however slow the machine is."""


async def test_output_and_measures_of_a_command_that_succeeds() -> None:
    log = Log()
    finish = await run(
        *python("import sys, time; time.sleep(.1); print('out'); print('err!', file=sys.stderr)"), log=log
    )
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert (log.stdout, log.stderr) == (b"out\n", b"err!\n")
    assert (finish.exec.stdout_bytes, finish.exec.stderr_bytes) == (4, 5)
    assert finish.exec.exit_code == 0
    assert finish.exec.HasField("exit_code")
    assert finish.exec.duration_ms >= 100


async def test_a_nonzero_exit_fails_with_the_status() -> None:
    finish = await run("sh", "-c", "exit 7")
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, "nonzero_exit")
    assert finish.exec.exit_code == 7
    assert "status 7" in finish.message


async def test_a_signal_from_elsewhere_fails_with_the_signal() -> None:
    finish = await run("sh", "-c", "kill -SEGV $$")
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, "killed_by_signal")
    assert finish.exec.signal == signal.SIGSEGV
    assert not finish.exec.HasField("exit_code")
    assert "SIGSEGV" in finish.message


async def test_arguments_reach_the_command_without_a_shell() -> None:
    log = Log()
    await run("printf", "%s|", "$HOME", "a b", "; exit 3", "*", log=log)
    assert log.stdout == b"$HOME|a b|; exit 3|*|"


@pytest.mark.parametrize("argv", [("no-such-command-anywhere",), ("/nowhere/at/all",)])
async def test_a_missing_binary_is_named(argv: tuple[str, ...]) -> None:
    finish = await run(*argv)
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, "command_not_found")
    assert argv[0] in finish.message
    assert not finish.HasField("exec")


async def test_a_folder_on_the_path_that_can_not_be_read_hides_nothing_behind_it(tmp_path: Path) -> None:
    """Only users have such folders; root reads them all."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    environment = {"PATH": f"{shut}:{os.environ['PATH']}"}
    adapter, log = ExecAdapter(QUICK, environment), Log()
    assert (await adapter.run(assignment("true"), log.emit)).outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    missing = await adapter.run(assignment("no-such-command-anywhere"), log.emit)
    too_long = await adapter.run(assignment("true", "x" * 4_000_000), log.emit)
    assert (missing.reason, too_long.reason) == ("command_not_found", "command_not_started")


async def test_what_else_keeps_a_command_from_starting(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    adapter, log = ExecAdapter(QUICK), Log()
    not_executable = await adapter.run(assignment(str(plain)), log.emit)
    plain.chmod(0o755)
    no_program = await adapter.run(assignment(str(plain)), log.emit)
    no_directory = await adapter.run(assignment("true", cwd="/no/such/place"), log.emit)
    nul = await adapter.run(assignment("echo", "a\0b"), log.emit)
    nothing = await adapter.run(assignment(), log.emit)
    too_long = await adapter.run(assignment("true", "x" * 4_000_000), log.emit)
    assert not_executable.reason == "command_not_executable"
    assert no_program.reason == "command_not_executable"
    assert no_directory.reason == "working_directory_not_found"
    assert (nul.reason, nothing.reason) == ("invalid_spec", "invalid_spec")
    assert too_long.reason == "command_not_started"
    assert len(too_long.message) <= 2000


async def test_a_word_that_the_system_can_not_take_leaves_nothing_open() -> None:
    """As every letter with an accent on a system whose encoding has none: here, half a character."""
    before = open_files()
    with pytest.raises(ValueError, match="surrogates") as caught:
        await Process.start(["true", "\ud800"], cwd=None, env={}, limits=QUICK, stdin=True)
    assert open_files() == before, caught  # which keeps what was open: nothing is left to the collector


@pytest.mark.parametrize(
    ("argv", "env", "field"),
    [
        (("", "a"), {}, "spec.exec.argv"),
        (("true",), {"": "x"}, "spec.exec.environment"),
        (("true",), {"A": "x", "B=C": "x"}, "spec.exec.environment"),
    ],
)
async def test_a_command_that_an_earlier_release_took_fails_with_its_reason(
    argv: tuple[str, ...], env: dict[str, str], field: str
) -> None:
    end = await ExecAdapter(QUICK).run(assignment(*argv, env=env), Log().emit)
    assert end.reason == "invalid_spec"
    assert field in end.message


async def test_binary_output_that_is_no_utf8_arrives_as_it_is() -> None:
    log = Log()
    await run(*python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 300 + b'\\xc3')"), log=log)
    assert log.stdout == bytes(range(256)) * 300 + b"\xc3"


async def test_huge_output_waits_for_slow_appends_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from oa_worker.adapters.exec.outputs import Outputs

    peak_buffered = 0
    read = Outputs.read

    async def watched(self: Outputs) -> tuple[int, bytes] | None:
        nonlocal peak_buffered
        peak_buffered = max(peak_buffered, self.buffered_bytes)
        return await read(self)

    monkeypatch.setattr(Outputs, "read", watched)
    log = Log(delay_s=0.001)
    size = 12_000_000
    finish = await run(*python(f"import sys; sys.stdout.buffer.write(b'x' * {size})"), log=log)
    assert finish.exec.stdout_bytes == len(log.stdout) == size
    pipe_read_bytes = 256 * 1024  # what asyncio reads from a pipe at most in one go
    assert 0 < peak_buffered <= QUICK.pipe_buffer_bytes + pipe_read_bytes


async def test_output_still_queued_when_the_command_ends_is_not_lost() -> None:
    log = Log(delay_s=0.4)  # slower than both graces after the end
    limits = ExecLimits(leftover_grace_ms=50, pipe_buffer_bytes=1)
    code = "import sys, time\nfor _ in range(4): print('x' * 999); time.sleep(.05)"
    finish = await run(*python(code), log=log, limits=limits)
    assert finish.exec.stdout_bytes == len(log.stdout) == 4000


async def test_cancel_ends_the_whole_group_and_says_canceled(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = assignment("sh", "-c", f"sleep 600 & echo $! > {pid_file}; echo started; wait")
    log = Log()
    running = asyncio.create_task(ExecAdapter(PATIENT).run(task, log.emit))
    await log.first.wait()
    task.cancel.request("enough", 0)
    finish = await running
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_CANCELED, "canceled")
    assert finish.exec.signal == signal.SIGTERM
    await until_dead(int(pid_file.read_text()))


async def test_a_command_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    task = assignment(*python(code))
    log = Log()
    running = asyncio.create_task(ExecAdapter(QUICK).run(task, log.emit))
    await log.first.wait()
    began = time.monotonic()
    task.cancel.request("enough", 0)
    finish = await running
    assert finish.outcome == event_pb2.RUN_OUTCOME_CANCELED
    assert finish.exec.signal == signal.SIGKILL
    assert time.monotonic() - began >= QUICK.terminate_grace_ms / 1000


async def test_the_grace_ends_before_the_authoritys_deadline() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    task = assignment(*python(code))
    log = Log()
    running = asyncio.create_task(ExecAdapter(ExecLimits(terminate_grace_ms=600_000)).run(task, log.emit))
    await log.first.wait()
    task.cancel.request("enough", deadline_ms=400)
    async with asyncio.timeout(PATIENCE_S):
        assert (await running).exec.signal == signal.SIGKILL


async def test_a_command_that_ends_in_peace_on_sigterm_is_canceled_too() -> None:
    code = (
        "import signal, sys, time\n"
        "def bye(*_): print('bye'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye); sys.stdout.write('hi\\n'); time.sleep(600)"
    )
    task = assignment(*python(code))
    log = Log()
    running = asyncio.create_task(ExecAdapter(PATIENT).run(task, log.emit))
    await log.first.wait()
    task.cancel.request("enough", 0)
    finish = await running
    assert finish.outcome == event_pb2.RUN_OUTCOME_CANCELED
    assert finish.exec.exit_code == 0
    assert log.stdout == b"hi\nbye\n"


async def test_a_timeout_fails_with_its_reason() -> None:
    finish = await run("sleep", "600", timeout_ms=150)
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, "timeout")
    assert "150 ms" in finish.message


async def test_closed_outputs_do_not_end_a_command_early() -> None:
    finish = await run(*python("import os, time; os.close(1); os.close(2); time.sleep(.3); os._exit(3)"))
    assert finish.exec.exit_code == 3
    assert finish.exec.duration_ms >= 300


async def test_a_refused_event_kills_the_command_and_leaves_with_the_refusal(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def refuse(event: EventBody) -> None:
        raise Refusal("stale_epoch", "somebody else has it")

    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); print('x'); time.sleep(600)"
    with pytest.raises(Refusal) as caught:
        await ExecAdapter(QUICK).run(assignment(*python(code)), refuse)
    assert caught.value.reason == "stale_epoch"
    await until_dead(int(pid_file.read_text()))


async def test_cancellation_of_the_task_kills_the_command() -> None:
    log = Log()
    running = asyncio.create_task(ExecAdapter(QUICK).run(assignment("sh", "-c", "echo $$; sleep 600"), log.emit))
    await log.first.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_dead(int(log.stdout))


def test_a_command_gets_the_usual_names_what_was_allowed_and_what_its_spec_says() -> None:
    worker = {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "LC": "no", "AWS_SECRET": "s3cret", "http_proxy": "u:p@h"}
    assert command_environment(worker, {"X": "1", "HOME": "/h"}) == {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "X": "1",
    }  # fmt: skip
    assert command_environment(worker, {}, allowed=("AWS_*", "http_proxy", "GONE")) == {
        key: value for key, value in worker.items() if key != "LC"
    }


@given(names=st.sets(st.text(max_size=12)), allowed=st.lists(st.text(max_size=12)))
def test_nothing_lets_the_workers_own_settings_through(names: set[str], allowed: list[str]) -> None:
    worker = dict.fromkeys({"OA_API_KEY", "OA_", *names, *(f"OA_{name}" for name in names)}, "s3cret")
    for patterns in (allowed, ["*", "O*", "OA_*", "OA_API_KEY", *allowed]):
        assert not [name for name in command_environment(worker, {}, allowed=patterns) if name.startswith("OA_")]


async def test_directory_and_variables_of_the_spec(tmp_path: Path) -> None:
    log = Log()
    task = assignment("sh", "-c", 'pwd; echo "$GREETING"', cwd=str(tmp_path), env={"GREETING": "hé"})
    await ExecAdapter(QUICK).run(task, log.emit)
    assert log.stdout.decode() == f"{tmp_path}\nhé\n"


async def test_a_real_command_sees_the_list_and_nothing_more() -> None:
    log = Log()
    worker = {
        "PATH": os.environ["PATH"],
        "TZ": "UTC",
        "OA_API_KEY": "s3cret",
        "DB_PASSWORD": "s3cret",
        "PIP_INDEX": "m",
    }
    adapter = ExecAdapter(QUICK, worker, allowed=("PIP_*",))
    await adapter.run(assignment("env", env={"GREETING": "hi"}), log.emit)
    assert {line.partition("=")[0] for line in log.stdout.decode().splitlines()} - {"LC_CTYPE"} == {
        "PATH", "TZ", "PIP_INDEX", "GREETING",
    }  # fmt: skip
