"""The call that all functions for operators make."""

from __future__ import annotations

from typing import TypeVar

import grpc
import grpc.aio

from oa_base.refusal import Refusal
from oa_wire.status import STATUS_METADATA_KEY, from_code, from_status_bytes

_TOKEN_KEY = "x-oa-service-token"
_TIMEOUT_S = 30.0
Q = TypeVar("Q")
T = TypeVar("T")


class OperatorCalls:
    """Calls with the operators' token."""

    def __init__(self, token: str) -> None:
        self._metadata = ((_TOKEN_KEY, token),)

    async def done(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, T], request: Q) -> T:
        """Make a call and return the answer. Raises Refusal: that of control, or one that says it can't be called."""
        try:
            return await method(request, metadata=self._metadata, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error) from None


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_METADATA_KEY and isinstance(value, bytes) and (refusal := from_status_bytes(value)):
            return refusal
    return from_code(error.code().name, f"control's internal port can't be called{_why(error)}; see to OA_CONTROL_GRPC")


def _why(error: grpc.aio.AioRpcError) -> str:
    """The end of what gRPC says of a connection that failed: a port that nobody listens on, or a certificate."""
    _, said, last = (error.details() or "").partition("last error: ")
    words = last.removesuffix(": OK").rstrip(".")  # "OK" is what the system call said of a handshake that failed
    return f" ({words.rpartition(': ')[2]})" if said else ""
