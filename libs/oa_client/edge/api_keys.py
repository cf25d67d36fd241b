"""Signing in with an API key: the access tokens of its owner, a service account or a person."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from weakref import WeakKeyDictionary

from oa_client.edge.auth import REFRESH_MARGIN_S
from oa_client.edge.calls import AccessToken, Edge
from openagents.control.v1 import service_account_service_pb2 as pb

_EXCHANGE = "openagents.control.v1.ServiceAccountService/ExchangeKey"


class ApiKeyAccess:
    """Access tokens of a client that signs in with a key; implements `oa_client.edge.calls.AccessTokens`.

    The tokens are kept in memory only, because the key yields another one at any time.
    """

    renewed_after = frozenset({"token_expired", "token_revoked"})
    """A client whose token was revoked may be let in again, because an operator can remove a block."""

    def __init__(self, edge: Edge, api_key: Callable[[], str]) -> None:
        """`api_key` tells the key each time that it is exchanged, because it may have been rotated."""
        self._edge = edge
        self._api_key = api_key
        self._token = AccessToken("")
        self._expires_at = 0.0
        # A lock belongs to a loop, and a loop that was closed may have left it locked.
        self._exchanging: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def namespace(self) -> str:
        """The name under which this machine stores the data of this key's owner. It does not reveal the key."""
        return f"key-{hashlib.sha256(self._api_key().encode()).hexdigest()[:32]}"

    async def current(self) -> AccessToken:
        """See `AccessTokens`. Raises Refusal `invalid_api_key`."""
        if self._expires_at - REFRESH_MARGIN_S > self._edge.now():
            return self._token
        return await self.renewed(self._token)

    async def renewed(self, rejected: AccessToken) -> AccessToken:
        """See `AccessTokens`. However many callers wait, the key is exchanged once."""
        async with self._exchanging.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if not self._token.value or self._token == rejected:
                request = pb.ExchangeKeyRequest(api_key=self._api_key(), use=pb.TOKEN_USE_EDGE)
                # One attempt: a call that is repeated comes here each time.
                answer = await self._edge.call(_EXCHANGE, request, pb.ExchangeKeyResponse)
                self._token = AccessToken(answer.token)
                self._expires_at = self._edge.by_our_clock(answer.expire_time)
            return self._token
