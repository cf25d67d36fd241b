"""Signing in with an API key: the access tokens of its owner, a service account or a person."""

from __future__ import annotations

import asyncio
import hashlib

from oa_client.edge.auth import REFRESH_MARGIN_S
from oa_client.edge.calls import ATTEMPTS, Edge
from openagents.control.v1 import service_account_service_pb2 as pb

_EXCHANGE = "openagents.control.v1.ServiceAccountService/ExchangeKey"


class ApiKeyAccess:
    """Whoever is signed in by a key; implements `oa_client.edge.calls.AccessTokens`.

    Its tokens are in memory only: the key makes another one at any time.
    """

    renewed_after = frozenset({"token_expired", "token_revoked"})
    """Whose token was revoked may be let in again: an operator takes a block away."""

    def __init__(self, edge: Edge, api_key: str) -> None:
        self._edge = edge
        self._api_key = api_key
        self._token = ""
        self._expires_at = 0.0
        self._exchanging = asyncio.Lock()

    @property
    def namespace(self) -> str:
        """What is kept on this machine for whoever has this key. It does not tell the key."""
        return f"key-{hashlib.sha256(self._api_key.encode()).hexdigest()[:32]}"

    async def current(self) -> str:
        """See `AccessTokens`. Raises Refusal `invalid_api_key`."""
        if self._expires_at - REFRESH_MARGIN_S > self._edge.now():
            return self._token
        return await self.renewed(self._token)

    async def renewed(self, rejected: str) -> str:
        """See `AccessTokens`. However many callers wait, the key is exchanged once."""
        async with self._exchanging:
            if not self._token or self._token == rejected:
                request = pb.ExchangeKeyRequest(api_key=self._api_key, use=pb.TOKEN_USE_EDGE)
                answer = await self._edge.call(_EXCHANGE, request, pb.ExchangeKeyResponse, attempts=ATTEMPTS)
                self._token = answer.token
                self._expires_at = self._edge.by_our_clock(answer.expire_time)
            return self._token
