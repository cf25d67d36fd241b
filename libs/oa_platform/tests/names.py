"""A DNS server that knows what it is told, for the tests of names that stand for several addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from types import TracebackType
from typing import Self

_HEAD = struct.Struct("!6H")
_A, _ANSWER, _NO_ERROR = 1, 0xC00C, 0x8580


class Names(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with `addresses`; an async context manager."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        """Listen on loopback."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One question."""
        self.asked += 1
        end = data.index(b"\0", _HEAD.size) + 5
        question = data[_HEAD.size : end]
        kind = int.from_bytes(question[-4:-2], "big")
        answers = [ipaddress.IPv4Address(one).packed for one in self.addresses] if kind == _A else []
        head = _HEAD.pack(int.from_bytes(data[:2], "big"), _NO_ERROR, 1, len(answers), 0, 0)
        records = (struct.pack("!3HIH", _ANSWER, _A, 1, 0, len(packed)) + packed for packed in answers)
        assert self._transport is not None
        self._transport.sendto(head + question + b"".join(records), addr)
