"""Many connections to a gateway, from a process that reads and discards. As a program, this module is that process.

It gets its subscriptions on standard input, and ends when that does. Each connection pings as often as our client does.
"""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvloop

from benchmarks.sockets import Subscriber, allow_sockets

PING_S = 20.0
"""Time between pings: a third of the time after which a gateway considers a client gone."""


@contextmanager
def subscribers(port: int, subscriptions: Sequence[tuple[str, str, str]]) -> Iterator[None]:
    """A connection for each token, topic and device, for a block; a bare one if these are empty."""
    command = [sys.executable, "-m", "benchmarks.sizing.subscribers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdin
            child.stdin.write(json.dumps([port, subscriptions]) + "\n")
            child.stdin.flush()
            yield
        finally:
            child.kill()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    port, subscriptions = json.loads(sys.stdin.readline())
    allow_sockets(len(subscriptions))
    made = []
    for who in subscriptions:
        protocol = functools.partial(Subscriber, *who) if any(who) else asyncio.Protocol
        _, subscriber = await loop.create_connection(protocol, "127.0.0.1", port)
        made.append(subscriber)
        if isinstance(subscriber, Subscriber):
            await subscriber.heard.wait()  # one after the other: a burst would be refused
    pinging = asyncio.create_task(_ping([one for one in made if isinstance(one, Subscriber)]))
    await loop.run_in_executor(None, sys.stdin.read)
    pinging.cancel()


async def _ping(all_of_them: Sequence[Subscriber]) -> None:
    while all_of_them:
        for subscriber in all_of_them:
            await asyncio.sleep(PING_S / len(all_of_them))
            subscriber.ping()


if __name__ == "__main__":
    uvloop.run(_main())
