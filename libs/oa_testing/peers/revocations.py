"""Control's stream of revocations, with a script in place of a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from openagents.control.v1 import revocation_service_pb2 as pb
from openagents.control.v1.revocation_service_pb2_grpc import (
    RevocationServiceServicer,
    add_RevocationServiceServicer_to_server,
)


class ScriptedRevocations(RevocationServiceServicer):
    """Streams the revocations that `revoke` was called with, in that order. `port` is where it serves."""

    def __init__(self) -> None:
        self.items: list[pb.Revocation] = []
        self.asked_after: list[int] = []
        """The position of each call."""
        self.silent = False
        """Whether streams send nothing, not even signs of life."""
        self.alive_s = 0.1
        self.port = 0
        self._news = asyncio.Condition()

    async def revoke(self, *revocations: pb.Revocation) -> None:
        """Add revocations; each gets the next position."""
        for revocation in revocations:
            revocation.position = len(self.items) + 1
            self.items.append(revocation)
        async with self._news:
            self._news.notify_all()

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        """Stream revocations as control does."""
        self.asked_after.append(request.after_position)
        position = request.after_position if request.after_position <= len(self.items) else 0
        while True:
            if self.silent:
                await asyncio.sleep(3600)
            new, position = self.items[position:], len(self.items)
            yield pb.WatchRevocationsResponse(revocations=new, position=position, caught_up=True)
            async with self._news:
                try:
                    await asyncio.wait_for(self._news.wait(), self.alive_s)
                except TimeoutError:
                    continue


@asynccontextmanager
async def serving(control: ScriptedRevocations, port: int = 0) -> AsyncIterator[None]:
    """Serve `control` for a block."""
    server = grpc.aio.server()
    add_RevocationServiceServicer_to_server(control, server)
    control.port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
