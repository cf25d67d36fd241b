"""Standard output and error of a child process, or its terminal, read only as fast as they are taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Outputs(asyncio.SubprocessProtocol):
    """`read` returns the output of the child's pipes, and None at the end. `fds`: 1 and 2, or only 1 for a terminal,
    which `pipe_opened` adds.

    Memory is bounded: when `buffer_bytes` wait to be read, all pipes pause, and the kernel stops the writer.
    """

    def __init__(self, buffer_bytes: int, fds: Iterable[int] = (1, 2)) -> None:
        self._buffer_bytes = buffer_bytes
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._buffered = 0
        self._open = set(fds)
        self._pipes: dict[int, asyncio.ReadTransport] = {}
        self._paused = False
        self._changed = asyncio.Event()
        self._patience_s: float | None = None
        self._max_bytes: dict[int, int] = {}
        self._transport: asyncio.SubprocessTransport | None = None
        self._closing = False
        self.child_over = asyncio.Event()
        """Set when the child itself has ended."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were read from the pipes and wait to be taken."""
        return self._buffered

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next (file descriptor 1 or 2, bytes); None when all output has been taken."""
        while not self._chunks:
            if not self._open:
                return None
            self._changed.clear()
            try:
                async with self._patience():
                    await self._changed.wait()
            except TimeoutError:
                return None
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk[1])
        if self._paused and self._buffered <= self._buffer_bytes // 2:
            self._flow(paused=False)
        return chunk

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Waits of all reads count together: a slow writer must not start the patience anew with every line."""
        clock, patience_s = asyncio.get_running_loop().time, self._patience_s
        begun = clock()
        async with asyncio.timeout(patience_s):
            yield
        if patience_s is not None:
            self._patience_s = max(0.0, patience_s - (clock() - begun))

    def last_call(self, patience_s: float, max_bytes: int) -> None:
        """From now on wait for more no longer than `patience_s` in all, and take `max_bytes` more from each pipe."""
        self._patience_s = patience_s
        self._max_bytes = dict.fromkeys(self._open, max_bytes)
        self._changed.set()

    def stop(self) -> None:
        """Give up what has not been read from the pipes yet; `read` returns what is here, then None."""
        self._open.clear()
        self._changed.set()

    def close(self) -> None:
        """Close the pipes, and let go of the child once it has ended: closing its transport would kill it."""
        self._closing = True
        self.stop()
        for pipe in self._pipes.values():
            pipe.close()
        if self._transport is not None and self.child_over.is_set():
            self._transport.close()

    def pipe_opened(self, fd: int, pipe: asyncio.ReadTransport) -> None:
        """Read the file descriptor from now on, and pause it when too much waits."""
        self._pipes[fd] = pipe

    # ------------------------------------------------------------------------------ asyncio.SubprocessProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        for fd in self._open:
            if isinstance(pipe := transport.get_pipe_transport(fd), asyncio.ReadTransport):
                self.pipe_opened(fd, pipe)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called by the loop."""
        if fd not in self._open:  # stop
            return
        if fd in self._max_bytes:
            data = data[: self._max_bytes[fd]]
            self._max_bytes[fd] -= len(data)
            if not self._max_bytes[fd]:
                self._open.discard(fd)
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
        self.child_over.set()
        if self._closing and self._transport is not None:
            self._transport.close()

    def _flow(self, *, paused: bool) -> None:
        self._paused = paused
        for fd in self._open & self._pipes.keys():
            if paused:
                self._pipes[fd].pause_reading()
            else:
                self._pipes[fd].resume_reading()
