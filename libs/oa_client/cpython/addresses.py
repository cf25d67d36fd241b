"""Connections to a host that has several addresses, some of which may be dead, on any event loop.

asyncio's own loops can try the next address while one is silent; others, such as uvloop, wait for each in turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
from itertools import chain, zip_longest
from typing import Any

NEXT_ADDRESS_S = 0.25
"""How long an address of the host may be silent before the next one is tried, too."""
_Address = tuple[Any, ...]
"""An entry of `getaddrinfo`."""


async def connected(host: str, port: int) -> socket.socket:
    """Return a connection to the first of the host's addresses that takes one. Raises OSError if none does."""
    waiting = in_turns(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[str] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_attempt(waiting.pop(0))))
            patience_s = NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                attempts.discard(attempt)
                if error is None:
                    return attempt.result()
                errors.append(str(error))
        raise OSError("; ".join(errors))
    finally:
        await _abandon(attempts)


def in_turns(addresses: list[_Address]) -> list[_Address]:
    """The addresses in their order, with the families in turns: often all those of one family are dead."""
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


async def _attempt(address: _Address) -> socket.socket:
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, where)
    except OSError as error:
        connection.close()
        said = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"{where[0]}:{where[1]}: {said}") from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _abandon(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()
