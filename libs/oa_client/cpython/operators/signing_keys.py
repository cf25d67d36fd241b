"""The keys that sign tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import signing_key_service_pb2 as pb
from openagents.control.v1.signing_key_service_pb2_grpc import SigningKeyServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.signing_key_service_pb2_grpc import SigningKeyServiceAsyncStub

_PREFIX = "SIGNING_KEY_STATE_"


@dataclass(frozen=True)
class SigningKey:
    """A key. `state`: published, signing, verifying or ended. Times are RFC 3339, and empty if a key has none."""

    key_id: str
    state: str
    from_settings: bool
    created_at: str
    signs_from: str
    ends_at: str
    document: JsonDocument


class SigningKeyOperators:
    """SigningKeyService over a channel, with the operators' token.

    Raises Refusal `already_exists`, `not_found`, `unavailable`, `service_not_accepted`.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: SigningKeyServiceAsyncStub = SigningKeyServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def list(self) -> Sequence[SigningKey]:
        """Return all keys, oldest first."""
        answer = await self._calls.done(self._stub.ListSigningKeys, pb.ListSigningKeysRequest())
        return [_key(one) for one in answer.keys]

    async def rotate(self, stolen: str = "") -> Sequence[SigningKey]:
        """Create the next key, or the one that replaces a stolen key, and return all keys, oldest first."""
        request = pb.RotateSigningKeyRequest(stolen_key_id=stolen)
        return [_key(one) for one in (await self._calls.done(self._stub.RotateSigningKey, request)).keys]


def _key(message: pb.SigningKey) -> SigningKey:
    def time(name: str) -> str:
        return getattr(message, name).ToJsonString() if message.HasField(name) else ""  # type: ignore[arg-type]

    state = pb.SigningKeyState.Name(message.state).removeprefix(_PREFIX).lower()
    times = time("create_time"), time("sign_time"), time("end_time")
    return SigningKey(message.key_id, state, message.from_settings, *times, document(message))
