"""The floor of a service: a process with uvloop, and nothing of ours.

It serves a port, which it prints. On "send ROUNDS BYTES PAUSE_S" it sends that many bytes to every connection, round
after round, and prints "sent". It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_everybody: list[asyncio.Transport] = []


class _Socket(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _everybody.append(cast("asyncio.Transport", transport))
        print("connected", flush=True)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Socket, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, rounds, size, pause_s = line.split()
        message = bytes(int(size))
        for _ in range(int(rounds)):
            for each in _everybody:
                each.write(message)
            await asyncio.sleep(float(pause_s))
        print("sent", flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
