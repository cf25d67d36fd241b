"""Errors of the wire -> Refusal: gRPC status with ErrorInfo and RetryInfo, and refused appends."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from oa_errors import Refusal, all_reasons, is_reason
from openagents.runtime.v1.worker_service_pb2 import AppendRefused

_DETAILS_KEY = "grpc-status-details-bin"
# A status without ErrorInfo comes from gRPC itself (no connection, deadline) or from a proxy.
_BARE_STATUS = {
    "UNAVAILABLE": "unavailable",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
    "CANCELLED": "cancelled",
    "UNAUTHENTICATED": "invalid_token",
    "PERMISSION_DENIED": "missing_scope",
    "UNIMPLEMENTED": "unknown_method",
    "RESOURCE_EXHAUSTED": "overloaded",
    "NOT_FOUND": "not_found",
    "INVALID_ARGUMENT": "malformed_message",
}


def refusal_of_rpc(error: grpc.aio.AioRpcError) -> Refusal:
    """What the called service refused; without details of ours, the nearest reason of the catalogue."""
    info, retry = _details(error)
    message = error.details() or error.code().name
    retry_after_ms = retry.retry_delay.ToMilliseconds()
    if info.reason and is_reason(info.reason):
        return Refusal(info.reason, message, metadata=dict(info.metadata), retry_after_ms=max(0, retry_after_ms))
    return Refusal(_BARE_STATUS.get(error.code().name, "unavailable"), message, retry_after_ms=max(0, retry_after_ms))


def refusal_of_append(refused: AppendRefused) -> Refusal:
    """What the authority refused of an append. A reason of a newer authority counts as a defect: retried slowly."""
    known = is_reason(refused.reason)
    return Refusal(
        refused.reason if known else "internal",
        refused.message if known else f"{refused.reason}: {refused.message}",
        field=refused.field,
        metadata=dict(refused.metadata),
        retry_after_ms=refused.retry_after_ms,
    )


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            continue
        for detail in status.details:
            for message in (info, retry):
                if detail.Is(message.DESCRIPTOR):
                    detail.Unpack(message)
    return info, retry


assert all(is_reason(reason) for reason in _BARE_STATUS.values()), [info.reason for info in all_reasons()]
