"""A DNS server that knows what it is told, for the tests of names that stand for several addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_HEAD = struct.Struct("!6H")
_A, _ANSWER, _NO_ERROR = 1, 0xC00C, 0x8580


class Names(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with `addresses`; an async context manager."""

    def __init__(self, *addresses: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.addresses = addresses
        self.asked = 0
        self.host = host
        self.port = port
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        """Listen on loopback."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def find(self, name: str) -> Sequence[str]:
        """The addresses of a name."""
        return self.addresses

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One question."""
        self.asked += 1
        end = data.index(b"\0", _HEAD.size) + 5
        question = data[_HEAD.size : end]
        kind = int.from_bytes(question[-4:-2], "big")
        answers = [ipaddress.IPv4Address(one).packed for one in self.find(_name(question))] if kind == _A else []
        head = _HEAD.pack(int.from_bytes(data[:2], "big"), _NO_ERROR, 1, len(answers), 0, 0)
        records = (struct.pack("!3HIH", _ANSWER, _A, 1, 0, len(packed)) + packed for packed in answers)
        assert self._transport is not None
        self._transport.sendto(head + question + b"".join(records), addr)


def _name(question: bytes) -> str:
    labels: list[str] = []
    while length := question[0]:
        labels.append(question[1 : length + 1].decode("ascii"))
        question = question[length + 1 :]
    return ".".join(labels).lower()
