"""API keys of service accounts, and the caller's own: creates, lists, rotates and ends them."""

from __future__ import annotations

from collections.abc import Sequence

from oa_client.core.api_keys import ApiKey, NewApiKey, key_of, new_key_of
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge
from oa_client.edge.new_ids import new_idempotency_key
from openagents.control.v1 import api_key_service_pb2 as pb

_KEYS = "openagents.control.v1.ApiKeyService"


class OwnKeys:
    """API keys. If the id of a service account is empty, the key is the caller's: a personal access token."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def create(
        self, name: str, *, service_account_id: str = "", scopes: Sequence[str] = (), ttl_s: int = 0
    ) -> NewApiKey:
        """Create a key. It has all scopes that it can have if none are named, and no end if `ttl_s` is 0.

        Raises Refusal `missing_scope`, `missing_field`, `invalid_value`, `limit_reached`, `not_found`.
        """
        request = pb.CreateApiKeyRequest(
            service_account_id=service_account_id, name=name, scopes=scopes, ttl_seconds=ttl_s
        )
        return new_key_of(
            await self._edge.call(f"{_KEYS}/CreateApiKey", request, pb.CreateApiKeyResponse, self._tokens)
        )

    async def list(self, service_account_id: str = "") -> tuple[ApiKey, ...]:
        """Return the keys, newest first."""
        request = pb.ListApiKeysRequest(service_account_id=service_account_id)
        answer = await self._edge.call(
            f"{_KEYS}/ListApiKeys", request, pb.ListApiKeysResponse, self._tokens, attempts=ATTEMPTS
        )
        return tuple(map(key_of, answer.keys))

    async def rotate(self, api_key_id: str, *, overlap_s: int, idempotency_key: str = "") -> NewApiKey:
        """Return a key that replaces another one, which still works for `overlap_s`. `idempotency_key` makes a repeated
        call safe until the new key has been used; without one, a new one is made.

        Raises Refusal `already_exists` for a key that was rotated before, `idempotency_conflict`.
        """
        request = pb.RotateApiKeyRequest(
            api_key_id=api_key_id, overlap_seconds=overlap_s, idempotency_key=idempotency_key or new_idempotency_key()
        )
        answer = await self._edge.call(
            f"{_KEYS}/RotateApiKey", request, pb.RotateApiKeyResponse, self._tokens, attempts=ATTEMPTS
        )
        return new_key_of(answer)

    async def revoke(self, api_key_id: str) -> None:
        """End a key, and the tokens that were made from it. Ending one that has ended changes nothing."""
        request = pb.RevokeApiKeyRequest(api_key_id=api_key_id)
        await self._edge.call(
            f"{_KEYS}/RevokeApiKey", request, pb.RevokeApiKeyResponse, self._tokens, attempts=ATTEMPTS
        )
