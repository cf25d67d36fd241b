"""Devices on which somebody watches a run, with sockets that a test sees end."""

from __future__ import annotations

from oa_client.client import Client
from oa_client.core.models import SyncGrant
from oa_khala import frames
from services.khala_gateway.tests.harness import Client as Socket

REVOKED = ("token_revoked", 4401)
"""How a socket ends whose token was revoked."""


class Device:
    """A device on which somebody watches a run, with sockets of its own."""

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic

    @property
    def session_id(self) -> str:
        return self._client.auth.credentials().session_id

    async def grant(self) -> SyncGrant:
        """A sync token for the run."""
        return await self._client.commands.sync_token([self._topic], surface="cli")

    async def socket(self, grant: SyncGrant) -> Socket:
        """One that has said hello with this token."""
        socket = await Socket.open(grant.khala_url)
        await socket.send(frames.Hello(grant.token, self._client.auth.device_id, "test/1"))
        return socket

    async def watching(self) -> Socket:
        """A socket that gets the run's events, with a token of its own."""
        socket = await self.socket(await self.grant())
        await socket.next(frames.Welcome)
        await socket.follow(self._topic)
        return socket
