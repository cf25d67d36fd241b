"""ApiKeyService."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from openagents.control.v1 import api_key_service_pb2 as keys_pb2
from services.control.api_keys.app.keys import ApiKeys, Wanted
from services.control.api_keys.domain import ApiKey
from services.control.calls.app import Call, Handlers, handlers_of, timestamp


class ApiKeyApi:
    """The methods of ApiKeyService."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    def handlers(self) -> Handlers:
        """One handler per method."""
        return handlers_of("ApiKeyService", self.CreateApiKey, self.ListApiKeys, self.RotateApiKey, self.RevokeApiKey)

    async def CreateApiKey(self, request: keys_pb2.CreateApiKeyRequest, call: Call) -> Message:
        """Create a key."""
        wanted = Wanted(request.name, tuple(request.scopes), request.ttl_seconds)
        new = await self._api_keys.create(call.caller, request.service_account_id, wanted, call.origin)
        return keys_pb2.CreateApiKeyResponse(key=_key(new.key), api_key=new.text)

    async def ListApiKeys(self, request: keys_pb2.ListApiKeysRequest, call: Call) -> Message:
        """Return the keys of an account, or the caller's own."""
        keys = await self._api_keys.list(call.caller, request.service_account_id)
        return keys_pb2.ListApiKeysResponse(keys=[_key(key) for key in keys])

    async def RotateApiKey(self, request: keys_pb2.RotateApiKeyRequest, call: Call) -> Message:
        """Replace a key with a new one."""
        new, old_ends = await self._api_keys.rotate(
            call.caller, request.api_key_id, request.overlap_seconds, call.origin, request.idempotency_key
        )
        return keys_pb2.RotateApiKeyResponse(key=_key(new.key), api_key=new.text, old_expire_time=timestamp(old_ends))

    async def RevokeApiKey(self, request: keys_pb2.RevokeApiKeyRequest, call: Call) -> Message:
        """End a key."""
        await self._api_keys.revoke(call.caller, request.api_key_id, call.origin)
        return keys_pb2.RevokeApiKeyResponse()


def _key(key: ApiKey) -> keys_pb2.ApiKey:
    return keys_pb2.ApiKey(
        api_key_id=key.api_key_id,
        owner=key.owner,
        org_id=key.org_id,
        name=key.name,
        prefix=key.prefix,
        scopes=sorted(key.scopes),
        create_time=timestamp(key.created_at),
        expire_time=_maybe(key.expires_at),
        last_use_time=_maybe(key.last_used_at),
        revoke_time=_maybe(key.revoked_at),
        revoke_reason=key.revoke_reason or "",
        replaced_by=key.replaced_by,
    )


def _maybe(moment: datetime | None) -> Timestamp | None:
    return timestamp(moment) if moment else None
