"""Somebody who speaks HTTP/2 by hand, and need not do what a gRPC client would."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum

from oa_platform.tests.grpc_sample import LOOPBACK
from oa_testing.waiting import PATIENCE_S

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9
_END_STREAM, _END_HEADERS = 1, 4
_NEWEST_INDEXED = bytes([128 | 62])


class Kind(IntEnum):
    """Frames of RFC 9113 that the tests send or look for."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4


@dataclass(frozen=True)
class Frame:
    """A frame that came."""

    kind: int
    stream: int
    payload: bytes


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def greet(self) -> None:
        """Begin as every client does."""
        self._writer.write(_PREFACE)
        self._send(Kind.SETTINGS, 0, 0, b"")

    def call(
        self,
        stream: int,
        path: str,
        metadata: Sequence[tuple[str, str]] = (),
        *,
        repeated: tuple[str, str, int] | None = None,
        ended: bool = False,
    ) -> None:
        """Begin a call, without a request; `ended`: and there will be none. `repeated`: metadata that comes a number of
        times, and takes a byte on the wire each time."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers")]
        fields += [("content-type", "application/grpc"), *metadata]
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        if repeated is not None:
            name, value, times = repeated
            block += b"\x40" + _text(name) + _text(value) + _NEWEST_INDEXED * (times - 1)
        self._send(Kind.HEADERS, _END_HEADERS | (_END_STREAM if ended else 0), stream, block)

    def begin_message(self, stream: int, announced: int, sent: int) -> None:
        """Send the first `sent` of `announced` bytes."""
        self._send(Kind.DATA, 0, stream, b"\0" + struct.pack(">I", announced) + bytes(sent))

    async def answer(self) -> bytes:
        """The next block of headers, as it is on the wire."""
        return (await self._next(Kind.HEADERS)).payload

    async def reset(self) -> int:
        """The next stream that the other side resets."""
        return (await self._next(Kind.RST_STREAM)).stream

    async def closed(self) -> None:
        """Wait until the other side has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass

    async def _next(self, kind: Kind) -> Frame:
        async with asyncio.timeout(PATIENCE_S):
            while (frame := await self._frame()).kind != kind:
                pass
        return frame

    async def _frame(self) -> Frame:
        head = await self._reader.readexactly(_HEAD_BYTES)
        payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        return Frame(head[3], int.from_bytes(head[5:]), payload)

    def _send(self, kind: Kind, flags: int, stream: int, payload: bytes) -> None:
        self._writer.write(len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload)


def _text(text: str) -> bytes:
    """A text as RFC 7541 has it, without Huffman's code."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    more = len(data) - 127
    assert more < 1 << 14
    return bytes([127, more & 127 | 128, more >> 7]) + data


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """A connection to a port of this machine that has sent nothing yet."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
