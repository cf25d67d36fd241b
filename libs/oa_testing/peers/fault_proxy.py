"""A TCP proxy that breaks connections on request: between a client and a real server, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum

from oa_testing.peers.forwarding import both_ways
from oa_testing.peers.listener import Listener

_CHUNK_BYTES = 16 * 1024


class Direction(Enum):
    """Which way bytes go through the proxy."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


@dataclass
class Faults:
    """What happens to the bytes of one direction. Changes work at once, on open connections too."""

    delay_s: float = 0.0
    """Each piece waits this long before it is forwarded; order is kept."""
    budget_bytes: int | None = None
    """After this many more bytes the connection is cut, even in the middle of a message."""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """When cleared, bytes wait in the proxy, and the sender sees only that nobody reads."""

    def __post_init__(self) -> None:
        self.flowing.set()

    def allowed(self, data: bytes) -> bytes:
        """Take the data from the budget, and return as much of it as that allows: less than all of it only once."""
        if self.budget_bytes is None:
            return data
        allowed = data[: self.budget_bytes]
        self.budget_bytes = self.budget_bytes - len(allowed) if len(allowed) == len(data) else None
        return allowed


class FaultProxy:
    """Listens on `port` of 127.0.0.1 and forwards to a server, until told to misbehave."""

    def __init__(self, server_host: str, server_port: int) -> None:
        self._target = (server_host, server_port)
        self._listener = Listener(self._serve)
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._refusing = False
        self.accepted = 0
        self.faults = {direction: Faults() for direction in Direction}
        self.forwarded_bytes = dict.fromkeys(Direction, 0)

    async def start(self) -> None:
        """Start to listen on a port of the system's choice."""
        await self._listener.start()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        assert self._listener.port, "start() first"
        return self._listener.port

    @property
    def open_connections(self) -> int:
        """How many connections are being forwarded."""
        return len(self._connections)

    async def cut(self) -> int:
        """Reset every open connection on both sides (RST, no orderly close); returns how many there were."""
        tasks = list(self._connections)
        for writers in self._connections.values():
            for writer in writers:
                _reset(writer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    def stall(self, *directions: Direction) -> None:
        """Stop forwarding without closing anything, like a network that drops every packet."""
        for direction in directions or Direction:
            self.faults[direction].flowing.clear()

    def resume(self) -> None:
        """Undo `stall`: the bytes that waited are forwarded."""
        for faults in self.faults.values():
            faults.flowing.set()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Hold each piece back for `seconds`; 0 undoes it."""
        for direction in directions or Direction:
            self.faults[direction].delay_s = seconds

    def truncate(self, after_bytes: int, direction: Direction = Direction.TO_CLIENT) -> None:
        """Cut the connection that takes the number of bytes in `direction`, counted from now, past `after_bytes`."""
        self.faults[direction].budget_bytes = after_bytes

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections at once, as if the server were down."""
        self._refusing = refusing

    async def close(self) -> None:
        """Cut everything and stop listening."""
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        self.accepted += 1
        try:
            if self._refusing:
                return
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            self._connections[task].append(server_writer)
            await self._forward_both(reader, writer, server_reader, server_writer)
            await _close_in_order(self._connections[task])
        except (OSError, asyncio.CancelledError):
            pass  # either side may break at any time; that is what this is for
        finally:
            for open_writer in self._connections.pop(task):
                _reset(open_writer)

    async def _forward_both(
        self,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Forward until both directions have ended, or one was cut."""
        await both_ways(
            self._pump(Direction.TO_SERVER, client_reader, server_writer),
            self._pump(Direction.TO_CLIENT, server_reader, client_writer),
        )

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults = self.faults[direction]
        while data := await reader.read(_CHUNK_BYTES):
            if faults.delay_s:
                await asyncio.sleep(faults.delay_s)
            await faults.flowing.wait()
            allowed = faults.allowed(data)
            writer.write(allowed)
            await writer.drain()
            self.forwarded_bytes[direction] += len(allowed)
            if len(allowed) < len(data):
                raise ConnectionResetError("the byte budget is spent")
        with contextlib.suppress(OSError):
            writer.write_eof()


async def _close_in_order(writers: list[asyncio.StreamWriter]) -> None:
    """Close after both sides have ended their streams, so that buffered data still arrives."""
    for writer in writers:
        writer.close()
    for writer in writers:
        await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: lingering is off, so the kernel discards unsent data and tells the peer."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
