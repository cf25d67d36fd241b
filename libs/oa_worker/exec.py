"""The built-in adapter "exec": runs a command without a shell and streams what it writes.

The command gets a process group (and session) of its own. When it ends, however it ends, its group ends with it: a
run leaves nothing running on the worker's machine, also when the worker itself is killed (`oa_worker.reaper`). Its
environment is the worker's without the worker's own `OA_…` settings, which hold secrets, plus the spec's variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Mapping

from oa_worker.adapter import Assignment, Emit
from oa_worker.limits import DEFAULT_EXEC_LIMITS, ExecLimits
from oa_worker.process import Process
from oa_worker.reaper import Reaper
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import EventBody, ExecResult, ExecSpec, RunFinished, TextDelta

_STREAMS = {1: event_pb2.TEXT_STREAM_STDOUT, 2: event_pb2.TEXT_STREAM_STDERR}
_PRIVATE_PREFIX = "OA_"


class ExecAdapter:
    """Runs `ExecSpec`s. The outcome is in the finish: exit code or signal, duration, bytes of both streams."""

    name = "exec"

    def __init__(self, limits: ExecLimits = DEFAULT_EXEC_LIMITS, environment: Mapping[str, str] | None = None) -> None:
        self._limits = limits
        self._reaper = Reaper()
        self._environment = dict(os.environ if environment is None else environment)

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        """Run the command to its end; see `Adapter.run`."""
        spec = assignment.spec.exec
        if not spec.argv:
            return _failed("invalid_spec", "The run's spec names no command: spec.exec.argv is empty.")
        try:
            process = await Process.start(
                list(spec.argv),
                cwd=spec.working_directory or None,
                env=command_environment(self._environment, spec.environment),
                buffer_bytes=self._limits.pipe_buffer_bytes,
            )
        except (OSError, ValueError) as error:
            return _not_started(spec, error)
        execution = _Execution(process, assignment, emit, self._limits)
        self._reaper.watch(process.pid)
        try:
            cause = await execution.run(spec.timeout_ms)
        finally:
            process.kill_group()
            process.close()
            self._reaper.forget(process.pid)
        return _finish(spec, cause, execution.result(), assignment)


class _Execution:
    """One command from its start to the last byte of its output."""

    def __init__(self, process: Process, assignment: Assignment, emit: Emit, limits: ExecLimits) -> None:
        self._process = process
        self._cancel = assignment.cancel
        self._emit = emit
        self._limits = limits
        self._bytes = {1: 0, 2: 0}

    async def run(self, timeout_ms: int) -> str:
        """Wait for the end of command and output; returns what ended it: "exit", "cancel" or "timeout"."""
        pump = asyncio.create_task(self._pump())
        canceled = asyncio.create_task(self._cancel.wait())
        try:
            cause = await self._first_cause(pump, canceled, timeout_ms)
            if cause != "exit":
                await self._end_command()
            await self._end_output(pump, canceled)
            return cause
        finally:
            for task in (pump, canceled):
                task.cancel()
            await asyncio.gather(pump, canceled, return_exceptions=True)

    def result(self) -> ExecResult:
        """What was measured."""
        code = self._process.returncode
        return ExecResult(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else 0,
            duration_ms=self._process.duration_ms,
            stdout_bytes=self._bytes[1],
            stderr_bytes=self._bytes[2],
        )

    async def _pump(self) -> None:
        while chunk := await self._process.read():
            stream, data = chunk
            self._bytes[stream] += len(data)
            await self._emit(EventBody(text_delta=TextDelta(stream=_STREAMS[stream], data=data)))

    async def _first_cause(self, pump: asyncio.Task[None], canceled: asyncio.Task[None], timeout_ms: int) -> str:
        exited = self._process.exited
        running = {pump, canceled, exited}
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000 if timeout_ms else None
        while True:
            remaining = deadline and max(0.0, deadline - asyncio.get_running_loop().time())
            done, running = await asyncio.wait(running, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if pump in done:
                pump.result()  # a refused emit ends the run; end of output alone (both pipes closed) does not
            if exited in done:
                return "exit"
            if canceled in done:
                return "cancel"
            if not done:
                return "timeout"

    async def _end_command(self) -> None:
        """SIGTERM, and SIGKILL for what still runs after the grace."""
        self._process.signal_group(signal.SIGTERM)
        grace_ms = self._limits.terminate_grace_ms
        if self._cancel.deadline_ms:  # leave the authority time to store the finish before it fences the run
            grace_ms = min(grace_ms, self._cancel.deadline_ms // 2)
        await asyncio.wait({self._process.exited}, timeout=grace_ms / 1000)
        if not self._process.exited.done():
            self._process.kill_group()
            await self._process.exited

    async def _end_output(self, pump: asyncio.Task[None], canceled: asyncio.Task[None]) -> None:
        """The command is over; read the rest, for as long as somebody may still write it."""
        await asyncio.wait({pump}, timeout=self._limits.leftover_grace_ms / 1000)
        self._process.kill_group()
        # Only a process that left the group holds a pipe now. It ends the run by being silent, or by a cancel.
        self._process.last_call(self._limits.leftover_grace_ms / 1000)
        waiting = {pump} if canceled.done() else {pump, canceled}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if canceled.done():
            self._process.stop_reading()
        await pump


def command_environment(worker: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """The command's environment: the worker's without its own settings (`OA_…`), and then the spec's."""
    kept = {name: value for name, value in worker.items() if not name.startswith(_PRIVATE_PREFIX)}
    return {**kept, **added}


def _finish(spec: ExecSpec, cause: str, result: ExecResult, assignment: Assignment) -> RunFinished:
    how = f"signal {_signal_name(result.signal)}" if result.signal else f"status {result.exit_code}"
    name = spec.argv[0]
    if cause == "cancel":
        message = f"{name} was ended on request ({how})."
        return RunFinished(
            outcome=event_pb2.RUN_OUTCOME_CANCELED, reason="canceled", message=_clipped(message), exec=result
        )
    if cause == "timeout":
        message = f"{name} ran longer than its {spec.timeout_ms} ms and was ended ({how})."
        return _failed("timeout", message, result)
    if result.signal:
        return _failed("killed_by_signal", f"{name} was ended by {how}, not by us.", result)
    if result.exit_code:
        return _failed("nonzero_exit", f"{name} ended with {how}.", result)
    return RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED, exec=result)


def _not_started(spec: ExecSpec, error: OSError | ValueError) -> RunFinished:
    name, directory = spec.argv[0], spec.working_directory
    if isinstance(error, ValueError):  # a NUL byte in an argument or variable, "=" in a variable's name
        return _failed("invalid_spec", f"{name!r} can't be started: {error}. Mend the arguments or variables.")
    if directory and not os.path.isdir(directory):  # noqa: PTH112 - a plain question, no path object to keep
        message = f"There is no directory {directory!r} on the worker's machine. Name one that exists there."
        return _failed("working_directory_not_found", message)
    if isinstance(error, FileNotFoundError):
        message = f"There is no command {name!r} on the worker's machine. Check the name, or give its full path."
        return _failed("command_not_found", message)
    if isinstance(error, PermissionError):
        return _failed("command_not_executable", f"{name!r} is there, but the worker may not execute it.")
    if error.errno == errno.ENOEXEC:
        return _failed("command_not_executable", f"{name!r} is not a program; does its first line lack a '#!'?")
    return _failed("command_not_started", f"{name!r} could not be started: {error.strerror or error}.")


def _failed(reason: str, message: str, result: ExecResult | None = None) -> RunFinished:
    return RunFinished(outcome=event_pb2.RUN_OUTCOME_FAILED, reason=reason, message=_clipped(message), exec=result)


def _clipped(message: str) -> str:
    return message if len(message) <= 2000 else message[:1999] + "…"  # the contract's limit


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)
