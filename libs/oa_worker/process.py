"""A child process with a group of its own, whose output is read only as fast as it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

_OUTPUTS = (1, 2)


class Process(asyncio.SubprocessProtocol):
    """Start it with `start`; `read` until it gives None; `exited` is done when the process itself has ended.

    Memory is bounded: when `buffer_bytes` wait to be read, both pipes pause, and the kernel stops the writer.
    """

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        loop = asyncio.get_running_loop()
        self._started_s = loop.time()
        self._ended_s: float | None = None
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._buffered = 0
        self._open = set(_OUTPUTS)
        self._paused = False
        self._changed = asyncio.Event()
        self._patience_s: float | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self.exited: asyncio.Future[None] = loop.create_future()

    @classmethod
    async def start(cls, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], buffer_bytes: int) -> Process:
        """Start `argv` without a shell. Raises OSError or ValueError when that can't be done."""
        loop = asyncio.get_running_loop()
        _, process = await loop.subprocess_exec(
            lambda: cls(buffer_bytes),
            *argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return process

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        assert self._transport is not None
        pid = self._transport.get_pid()
        assert pid is not None
        return pid

    @property
    def returncode(self) -> int | None:
        """Exit status; negative: the signal that ended it; None while it runs."""
        return self._transport.get_returncode() if self._transport else None

    @property
    def duration_ms(self) -> int:
        """How long it has run, or ran."""
        end_s = asyncio.get_running_loop().time() if self._ended_s is None else self._ended_s
        return round((end_s - self._started_s) * 1000)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were read from the pipes and wait to be taken."""
        return self._buffered

    async def read(self) -> tuple[int, bytes] | None:
        """The next (file descriptor 1 or 2, bytes); None when all output has been taken."""
        while not self._chunks:
            if not self._open:
                return None
            self._changed.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk[1])
        if self._paused and self._buffered <= self._buffer_bytes // 2:
            self._flow(paused=False)
        return chunk

    def last_call(self, patience_s: float) -> None:
        """From now on `read` waits no longer than `patience_s` for more output."""
        self._patience_s = patience_s
        self._changed.set()

    def stop_reading(self) -> None:
        """Give up what has not been read from the pipes yet; `read` gives what is here, then None."""
        self._open.clear()
        self._changed.set()

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the whole group; what is gone is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill_group(self) -> None:
        """SIGKILL to the whole group."""
        self.signal_group(signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes; the process, if it still runs, is killed."""
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------------------ asyncio.SubprocessProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called by the loop."""
        if fd not in self._open:  # stop_reading
            return
        self._chunks.append((fd, bytes(data)))
        self._buffered += len(data)
        self._changed.set()
        if not self._paused and self._buffered >= self._buffer_bytes:
            self._flow(paused=True)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Called by the loop."""
        self._open.discard(fd)
        self._changed.set()

    def process_exited(self) -> None:
        """Called by the loop."""
        self._ended_s = asyncio.get_running_loop().time()
        if not self.exited.done():
            self.exited.set_result(None)

    def _flow(self, *, paused: bool) -> None:
        assert self._transport is not None
        self._paused = paused
        for fd in self._open:
            pipe = self._transport.get_pipe_transport(fd)
            if isinstance(pipe, asyncio.ReadTransport):
                if paused:
                    pipe.pause_reading()
                else:
                    pipe.resume_reading()
