"""API keys as clients see them, and the mapping from the contract's messages."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from oa_client.core.models import JsonDocument
from openagents.control.v1 import api_key_service_pb2 as pb


@dataclass(frozen=True)
class ApiKey:
    """An API key. Times are RFC 3339, and empty for events that have not happened or never will.

    `replaced_by` is the key that replaced it; empty if none has.
    """

    api_key_id: str
    owner: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: str
    expires_at: str
    last_used_at: str
    revoked_at: str
    replaced_by: str
    document: JsonDocument


@dataclass(frozen=True)
class NewApiKey:
    """A new key, which is shown only once. `old_expires_at` is when the key that it replaces ends."""

    key: ApiKey
    api_key: str
    document: JsonDocument
    old_expires_at: str = ""

    def __repr__(self) -> str:
        return f"NewApiKey({self.key.api_key_id})"


def key_of(message: pb.ApiKey) -> ApiKey:
    """A key."""
    return ApiKey(
        message.api_key_id,
        message.owner,
        message.name,
        message.prefix,
        tuple(message.scopes),
        message.create_time.ToJsonString(),
        _time(message, "expire_time"),
        _time(message, "last_use_time"),
        _time(message, "revoke_time"),
        message.replaced_by,
        MessageToDict(message),
    )


def new_key_of(message: pb.CreateApiKeyResponse | pb.RotateApiKeyResponse) -> NewApiKey:
    """A new key, or one that replaces another."""
    old = message.old_expire_time.ToJsonString() if isinstance(message, pb.RotateApiKeyResponse) else ""
    return NewApiKey(key_of(message.key), message.api_key, MessageToDict(message), old)


def _time(message: pb.ApiKey, name: str) -> str:
    moment: Timestamp = getattr(message, name)
    return moment.ToJsonString() if message.HasField(name) else ""  # type: ignore[arg-type] # a field of it
