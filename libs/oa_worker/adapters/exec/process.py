"""A command below a warden of its own (`warden`): nothing that it starts outlives `close`, or the worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from oa_worker.adapters.exec import warden
from oa_worker.adapters.exec.outputs import Outputs
from oa_worker.adapters.exec.stdin import Size, Stdin
from oa_worker.adapters.exec.terminal import open_terminal
from oa_worker.sdk.limits import ExecLimits


class Process:
    """Start it with `start`, read its `outputs`, `end` what it left running, and `close` it in any case."""

    def __init__(
        self, outputs: Outputs, stdin: Stdin | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        self.stdin = stdin
        """The command's standard input, if it has one that is not empty, or a terminal."""
        self._listener: asyncio.Task[None] | None = None
        self.outputs = outputs
        self.pid = 0
        """Id of the command's process, and of its process group."""
        self.returncode: int | None = None
        """Exit status; negative: the signal that ended it; None while it runs, and when its warden was killed."""
        self.duration_ms = 0
        """How long the command ran, once it has ended."""
        self.left = 0
        """How many processes could not be ended, once `gone` is set."""
        self.exited = asyncio.Event()
        """Set once the command itself has ended."""
        self.gone = asyncio.Event()
        """Set once everything that it started has ended too, or can't be ended."""

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        limits: ExecLimits,
        all_below: bool = True,
        stdin: bool = False,
        terminal: Size | None = None,
        kept: int | None = None,
    ) -> Process:
        """Start `argv` without a shell. Raises OSError or ValueError when that can't be done.

        `all_below`: end everything that it starts, where the system allows that, and not only its process group.
        `stdin`: its standard input is a pipe and not empty.
        `terminal`: it has a terminal of this size instead of pipes, which is its standard input in any case.
        `kept`: a file descriptor that the warden keeps open until its end, and that the command does not have.
        """
        # Before there is anything to close: another encoding of the system than UTF-8 may have no form for them.
        words = [os.fsencode(argument) for argument in argv]
        directory = os.fsencode(cwd) if cwd else None
        environment = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        has_terminal = terminal is not None
        outputs = Outputs(limits.pipe_buffer_bytes, (1,) if has_terminal else (1, 2))
        pipe, theirs = await _standard_input(stdin, terminal, outputs, limits)
        try:
            process = await cls._with_warden(outputs, pipe, theirs, has_terminal, kept)
        except BaseException:
            outputs.close()
            if pipe is not None:
                pipe.close()
            raise
        finally:
            if theirs is not None:
                os.close(theirs)
        order: warden.Order = (
            words,
            directory,
            environment,
            all_below,
            limits.kill_timeout_ms / 1000,
            theirs,
            has_terminal,
        )
        try:
            await process._begin(order)
        except BaseException:
            await process.close()
            raise
        return process

    @classmethod
    async def _with_warden(
        cls, outputs: Outputs, stdin: Stdin | None, input_fd: int | None, has_terminal: bool, kept: int | None
    ) -> Process:
        """`input_fd`: becomes the command's standard input and, with a terminal, all three of its files."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                output_fd = input_fd if has_terminal else subprocess.PIPE
                await asyncio.get_running_loop().subprocess_exec(
                    lambda: outputs,
                    *(sys.executable, "-I", "-S", warden.__file__),
                    env={},
                    stdin=theirs.fileno(),
                    stdout=output_fd,
                    stderr=output_fd,
                    pass_fds=[fd for fd in (input_fd, kept) if fd is not None],
                    start_new_session=True,  # signals to the worker's group or terminal are not for it
                )
            except BaseException:
                writer.close()
                raise
        return cls(outputs, stdin, reader, writer)

    async def _begin(self, order: warden.Order) -> None:
        self._writer.write(warden.packed(order))
        word, rest = await self._line()
        if word == "started":
            self.pid = int(rest)
            self._listener = asyncio.create_task(self._listen())
            return
        number, _, text = rest.partition(" ")
        if word == "refused" and number == "0":
            raise ValueError(text)
        raise OSError(int(number or 0), os.strerror(int(number)) if number else "its warden was killed")

    async def end(self, grace_s: float) -> None:
        """Send SIGTERM to everything, and SIGKILL to what still runs after `grace_s`; return when nothing is left."""
        if self.gone.is_set():
            return
        self._writer.write(b"T")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.gone.wait()
        if not self.gone.is_set():
            self._writer.write(b"K")
            await self.gone.wait()

    async def close(self) -> None:
        """Kill everything that is left and let go of the pipes; return when the warden has ended."""
        try:
            if self._listener is not None and not self.gone.is_set():
                self._writer.write(b"K")
                await self.gone.wait()
        finally:
            if self.stdin is not None:
                self.stdin.close()
            self._writer.close()  # this alone is an order to kill, in case we are interrupted
            self.outputs.close()
        await self.outputs.child_over.wait()
        if self._listener is not None:
            await asyncio.wait([self._listener])

    async def _listen(self) -> None:
        """Read the warden's messages until its end."""
        try:
            while not self.gone.is_set():
                word, rest = await self._line()
                match word:
                    case "exited":
                        status, _, duration_ms = rest.partition(" ")
                        self.returncode, self.duration_ms = int(status), int(duration_ms)
                        self.exited.set()
                    case "gone" | "left":
                        self.left = int(rest or 0)
                        self.gone.set()
                    case _:  # the end: somebody has killed the warden
                        self._end_group()
                        self.gone.set()
        finally:  # also when the loop ends and cancels everything: tasks that wait would wait forever
            self.exited.set()
            self.gone.set()

    async def _line(self) -> tuple[str, str]:
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        word, _, rest = line.decode(errors="replace").strip().partition(" ")
        return word, rest

    def _end_group(self) -> None:
        if not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


async def _standard_input(
    stdin: bool, terminal: Size | None, outputs: Outputs, limits: ExecLimits
) -> tuple[Stdin | None, int | None]:
    """Return our end of the standard input and the command's, which the caller closes; None for an empty one."""
    if terminal is not None:
        return await open_terminal(terminal, outputs, limits.stdin_buffer_bytes)
    return await Stdin.open(limits.stdin_buffer_bytes) if stdin else (None, None)
