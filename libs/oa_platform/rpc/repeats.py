"""Decides which unary calls are made again at another replica, and after which errors."""

from __future__ import annotations

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from oa_platform.health.failures import refusal_from_rpc_error
from oa_wire.status import STATUS_METADATA_KEY

MOVES = 2
"""How often a call that a draining server did not take is made again. The next server may drain too."""
REPEATS = 1
"""How often a call that is safe to repeat is made again after its connection was lost."""


class Repeats:
    """How often one call may be made again."""

    def __init__(self, method: str) -> None:
        """`method` is the full name: "/package.Service/Method"."""
        self._method = method
        self._moves = MOVES
        self._repeats = REPEATS

    def allow(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether to make the call again after an attempt that ended with `error`. The repeat is counted."""
        if refusal_from_rpc_error(error).reason == "draining":
            self._moves -= 1
            return self._moves >= 0
        if connection_lost(error):
            self._repeats -= 1
            return self._repeats >= 0 and safe_to_repeat(self._method)
        return False


def safe_to_repeat(method: str) -> bool:
    """Whether the contract says that making a call twice is the same as once (`idempotency_level`)."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method.removeprefix("/").replace("/", "."))
    except KeyError:
        return False
    return bool(found.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN)


def connection_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether the transport failed. An answer of a service stands, even if it is `unavailable`."""
    answered = any(key == STATUS_METADATA_KEY for key, _ in error.trailing_metadata() or ())
    return error.code() is grpc.StatusCode.UNAVAILABLE and not answered
