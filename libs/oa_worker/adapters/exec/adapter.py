"""The built-in adapter "exec": runs a command without a shell and streams what it writes.

A run is its command: it ends when the command does, with the command's status. Processes that the command left running
have a moment to finish their output and are then ended too, whatever they did to get away. Everything is also ended at
a cancel, at the deadline, and when the worker itself is killed. `warden` describes how, and what can't be caught;
docs/exec.md describes what a person sees. The command's files are pipes, or one terminal if the spec asks for that.
`environment` determines what the command gets of the worker's environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from oa_runlog.stdin import StdinPiece, read_piece
from oa_worker.adapters.exec.environment import command_environment
from oa_worker.adapters.exec.process import Process
from oa_worker.sdk.adapter import Assignment, Emit
from oa_worker.sdk.limits import DEFAULT_EXEC_LIMITS, ExecLimits
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import EventBody, ExecResult, ExecSpec, RunFinished, TextDelta

_STREAMS = {1: event_pb2.TEXT_STREAM_STDOUT, 2: event_pb2.TEXT_STREAM_STDERR}
_INPUT = "input.received"
_log = logging.getLogger("oa_worker")


class ExecAdapter:
    """Runs `ExecSpec`s. The outcome is in the finish: exit code or signal, duration, bytes of both streams."""

    name = "exec"

    def __init__(
        self,
        limits: ExecLimits = DEFAULT_EXEC_LIMITS,
        environment: Mapping[str, str] | None = None,
        *,
        allowed: Sequence[str] = (),
    ) -> None:
        """`environment`: the worker's environment, of which a command gets the variables that `environment.KEPT` and
        `allowed` name; by default that of this process. `allowed`: names of variables, or prefixes followed by `*`.
        """
        self._limits = limits
        self._environment = dict(os.environ if environment is None else environment)
        self._allowed = tuple(allowed)

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        """Run the command to its end; see `Adapter.run`."""
        spec = assignment.spec.exec
        if not spec.argv or not spec.argv[0]:
            return _failed("invalid_spec", "the run's spec names no command; fill spec.exec.argv")
        if any(not name or "=" in name for name in spec.environment):
            message = "the name of a variable of the run's spec is empty or holds '='; mend spec.exec.environment"
            return _failed("invalid_spec", message)
        try:
            process = await Process.start(
                list(spec.argv),
                cwd=spec.working_directory or None,
                env=self._environment_of(spec),
                limits=self._limits,
                stdin=spec.stdin,
                terminal=(spec.terminal.columns, spec.terminal.rows) if spec.HasField("terminal") else None,
            )
        except (OSError, ValueError) as error:
            return _not_started(spec, error)
        execution = _Execution(process, assignment, emit, self._limits)
        try:
            cause = await execution.run(spec.timeout_ms)
        finally:
            await process.close()
            if process.left:
                _log.warning("run %s: %d processes could not be ended", assignment.run_id, process.left)
        return _finish(spec, cause, execution.result(), assignment)

    def _environment_of(self, spec: ExecSpec) -> dict[str, str]:
        return command_environment(
            self._environment, spec.environment, allowed=self._allowed, has_terminal=spec.HasField("terminal")
        )


class _Execution:
    """One command from its start to the last byte of its output."""

    def __init__(self, process: Process, assignment: Assignment, emit: Emit, limits: ExecLimits) -> None:
        self._process = process
        self._assignment = assignment
        self._cancel = assignment.cancel
        self._emit = emit
        self._limits = limits
        self._bytes = {1: 0, 2: 0}
        self._deadline_s: float | None = None

    async def run(self, timeout_ms: int) -> str:
        """Wait for the end of the command and its output; return what ended it: "exit", "cancel" or "timeout"."""
        if timeout_ms:
            self._deadline_s = asyncio.get_running_loop().time() + timeout_ms / 1000
        pump = asyncio.create_task(self._pump())
        feed = asyncio.create_task(self._feed())
        exited = asyncio.create_task(self._process.exited.wait())
        canceled = asyncio.create_task(self._cancel.wait())
        try:
            cause = await self._first_cause(pump, feed, exited, canceled)
            if cause == "exit":
                cause = await self._leftovers(pump, canceled)
            else:
                await self._process.end(self._grace_s())
            await self._rest(pump, canceled)
            return cause
        finally:
            for task in (pump, feed, exited, canceled):
                task.cancel()
            await asyncio.gather(pump, feed, exited, canceled, return_exceptions=True)

    def result(self) -> ExecResult:
        """Return what was measured."""
        code = self._process.returncode
        return ExecResult(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else 0,
            duration_ms=self._process.duration_ms,
            stdout_bytes=self._bytes[1],
            stderr_bytes=self._bytes[2],
        )

    async def _pump(self) -> None:
        while chunk := await self._process.outputs.read():
            stream, data = chunk
            self._bytes[stream] += len(data)
            await self._emit(EventBody(text_delta=TextDelta(stream=_STREAMS[stream], data=data)))

    async def _feed(self) -> None:
        """Write the run's inputs to the command, from the first one on, as fast as it reads them."""
        stdin, spec = self._process.stdin, self._assignment.spec.exec
        if stdin is None:
            return
        hears = spec.stdin
        if not hears:
            stdin.end()  # a terminal at which nobody types
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                if piece.size is not None:
                    stdin.resize(piece.size)
                elif hears and not await stdin.write(piece.data):
                    return  # the command has closed it, or is over
                elif hears and piece.ends:
                    stdin.end()
                    hears = False
                if not hears and not spec.HasField("terminal"):
                    return

    async def _pieces(self) -> AsyncGenerator[StdinPiece, None]:
        """Iterate over the pieces in the run's inputs, from the first one on, and wait for those that come."""
        after_seq = 0
        while True:
            told = self._assignment.news.count  # before the read, so that news during the read leads to another read
            async with aclosing(self._assignment.events(_INPUT, after_seq=after_seq)) as inputs:
                async for event in inputs:
                    after_seq = event.seq
                    yield read_piece(event.body.input_received.input_json)
            await self._assignment.news.after(told)

    async def _first_cause(
        self,
        pump: asyncio.Task[None],
        feed: asyncio.Task[None],
        exited: asyncio.Task[bool],
        canceled: asyncio.Task[None],
    ) -> str:
        running: set[asyncio.Task[Any]] = {pump, feed, exited, canceled}
        while True:
            done, running = await asyncio.wait(
                running, timeout=self._remaining_s(), return_when=asyncio.FIRST_COMPLETED
            )
            if pump in done:
                pump.result()  # a refused emit ends the run; end of output alone (both pipes closed) does not
            if feed in done:
                feed.result()  # a run that is no longer ours, or an input that no authority takes
            if exited in done:
                return "exit"
            if canceled in done:
                return "cancel"
            if not done:
                return "timeout"

    async def _leftovers(self, pump: asyncio.Task[None], canceled: asyncio.Task[None]) -> str:
        """After the command's end in time, let what it left finish its output for a moment. A cancel still counts."""
        grace_s = self._limits.leftover_grace_ms / 1000
        remaining_s = self._remaining_s()
        patience_s = grace_s if remaining_s is None else min(grace_s, remaining_s)
        gone = asyncio.create_task(self._process.gone.wait())
        await asyncio.wait({pump, canceled, gone}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        some_left = not self._process.gone.is_set()
        await self._process.end(self._grace_s())
        return "cancel" if some_left and canceled.done() else "exit"

    async def _rest(self, pump: asyncio.Task[None], canceled: asyncio.Task[None]) -> None:
        """Take what is still in the pipes after the end, within limits: an outside process may hold them open."""
        grace_s = self._limits.leftover_grace_ms / 1000
        self._process.outputs.last_call(grace_s, self._limits.foreign_output_bytes)
        waiting = {pump} if canceled.done() else {pump, canceled}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if canceled.done():
            self._process.outputs.stop()
        await pump

    def _remaining_s(self) -> float | None:
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    def _grace_s(self) -> float:
        """Return the time between SIGTERM and SIGKILL."""
        grace_ms = self._limits.terminate_grace_ms
        if self._cancel.deadline_ms:  # leave the authority time to store the finish before it fences the run
            grace_ms = min(grace_ms, self._cancel.deadline_ms // 2)
        return grace_ms / 1000


def _finish(spec: ExecSpec, cause: str, result: ExecResult, assignment: Assignment) -> RunFinished:
    how = f"signal {_signal_name(result.signal)}" if result.signal else f"status {result.exit_code}"
    name = spec.argv[0]
    if cause == "cancel":
        message = f"{name} was ended on request ({how})"
        return RunFinished(
            outcome=event_pb2.RUN_OUTCOME_CANCELED, reason="canceled", message=_clipped(message), exec=result
        )
    if cause == "timeout":
        message = f"{name} ran longer than its {spec.timeout_ms} ms and was ended ({how})"
        return _failed("timeout", message, result)
    if not result.signal and not result.HasField("exit_code"):
        message = f"{name} was killed together with the warden above it; check whether the command does that"
        return _failed("supervisor_lost", message, result)
    if result.signal:
        return _failed("killed_by_signal", f"{name} was ended by {how}, not by us", result)
    if result.exit_code:
        return _failed("nonzero_exit", f"{name} ended with {how}", result)
    return RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED, exec=result)


def _not_started(spec: ExecSpec, error: OSError | ValueError) -> RunFinished:
    name, directory = spec.argv[0], spec.working_directory
    if isinstance(error, ValueError):  # a NUL byte in an argument or variable
        return _failed("invalid_spec", f"{name!r} can't be started: {error}; mend the arguments or variables")
    if directory and not os.path.isdir(directory):  # noqa: PTH112 - a plain question, no path object to keep
        message = f"there is no directory {directory!r} on the worker's machine; name one that exists there"
        return _failed("working_directory_not_found", message)
    if isinstance(error, FileNotFoundError):
        message = f"there is no command {name!r} on the worker's machine; check the name, or give its full path"
        return _failed("command_not_found", message)
    if isinstance(error, PermissionError):
        return _failed(
            "command_not_executable", f"{name!r} is there, but the worker may not execute it; give it the right to"
        )
    if error.errno == errno.ENOEXEC:
        return _failed(
            "command_not_executable", f"{name!r} is not a program; a script needs a first line that begins with '#!'"
        )
    message = f"{name!r} can't be started ({error.strerror or error}); see to that on the worker's machine"
    return _failed("command_not_started", message)


def _failed(reason: str, message: str, result: ExecResult | None = None) -> RunFinished:
    return RunFinished(outcome=event_pb2.RUN_OUTCOME_FAILED, reason=reason, message=_clipped(message), exec=result)


def _clipped(message: str) -> str:
    return message if len(message) <= 2000 else message[:1999] + "…"  # the contract's limit


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)
