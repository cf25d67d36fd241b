"""The floor of a run with steps: its messages and its commits, and nothing else.

A run of `k` steps is a chain of `k + 2` appends (it begins, each step is stored, it ends), and each of them can be sent
only when the one before has been answered. Here the server is a process with one bare gRPC stream; it stores each
append as one row, and answers when that is committed. All appends that wait share a message, a transaction and an
answer, as they do in runtime. Nothing is decided, announced or proved.

`python -m benchmarks.peers.bare_commits DSN` is the server: it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import uvloop

APPEND_BYTES = 256
_METHOD = "/bench.Floor/Append"
_TABLE = "CREATE TABLE IF NOT EXISTS public.floor (place bigint GENERATED ALWAYS AS IDENTITY, body bytea)"
_INSERT = "INSERT INTO public.floor (body) SELECT unnest($1::bytea[])"
_REPOSITORY = Path(__file__).resolve().parents[2]
_KEY_BYTES = 8
Flow = Callable[[int], Awaitable[None]]
"""Makes as many commits, one after the other, as a run with that many steps has."""


class _Server:
    """Stores the appends of all streams; all that wait share one transaction."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._waiting: list[tuple[bytes, Any]] = []
        self._came = asyncio.Event()

    async def store(self) -> None:
        """Store appends forever."""
        statement = await self._connection.prepare(_INSERT)
        while True:
            await self._came.wait()
            self._came.clear()
            batch, self._waiting = self._waiting, []
            await statement.fetch([append for message, _ in batch for append in _pieces(message, APPEND_BYTES)])
            for message, context in batch:
                await context.write(b"".join(append[:_KEY_BYTES] for append in _pieces(message, APPEND_BYTES)))

    async def append(self, messages: AsyncIterator[bytes], context: Any) -> None:
        """Serve one stream."""
        async for message in messages:
            self._waiting.append((message, context))
            self._came.set()


def _pieces(message: bytes, size: int) -> list[bytes]:
    return [message[at : at + size] for at in range(0, len(message), size)]


class _Stream:
    """The caller's side: appends that wait go together."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._answered: dict[bytes, asyncio.Future[None]] = {}
        self._keys = (number.to_bytes(_KEY_BYTES) for number in count())
        self._waiting: list[bytes] = []
        self._came = asyncio.Event()

    async def append(self) -> None:
        """Append once, and return when it is committed."""
        key = next(self._keys)
        self._answered[key] = future = asyncio.get_running_loop().create_future()
        self._waiting.append(key.ljust(APPEND_BYTES, b"."))
        self._came.set()
        await future

    async def run(self, steps: int) -> None:
        """Make the appends of a run with `steps` steps, one after the other."""
        for _ in range(steps + 2):
            await self.append()

    async def read(self) -> None:
        """Read answers until the stream ends."""
        while (message := await self._call.read()) is not grpc.aio.EOF:
            for key in _pieces(message, _KEY_BYTES):
                self._answered.pop(key).set_result(None)

    async def write(self) -> None:
        """Write waiting appends forever."""
        while True:
            await self._came.wait()
            self._came.clear()
            waiting, self._waiting = self._waiting, []
            await self._call.write(b"".join(waiting))


async def _serve(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_TABLE)
    server, ours = grpc.aio.server(), _Server(connection)
    handler: Any = grpc.stream_stream_rpc_method_handler(ours.append)
    service, _, method = _METHOD.removeprefix("/").partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    storing = asyncio.create_task(ours.store())
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    storing.cancel()
    await server.stop(0)
    await connection.close()


@contextmanager
def server(dsn: str) -> Iterator[str]:
    """The server as a process, for a block; yields its address."""
    command = [sys.executable, "-m", "benchmarks.peers.bare_commits", dsn]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=_REPOSITORY, env={**os.environ}, stdin=pipe, stdout=pipe, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@asynccontextmanager
async def flow(target: str) -> AsyncIterator[Flow]:
    """A function that makes a run's chain of commits, over one stream, for a block."""
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_stream(_METHOD)()
        stream = _Stream(call)
        tasks = [asyncio.create_task(stream.read()), asyncio.create_task(stream.write())]
        try:
            yield stream.run
        finally:
            call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
