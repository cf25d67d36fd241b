"""A refusal on the wire: `google.rpc.Status` with ErrorInfo, and with RetryInfo if waiting helps.

gRPC carries these bytes in the trailing metadata `grpc-status-details-bin`; the Connect edge carries the same details.
Needs `googleapis-common-protos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from oa_base.catalogue import is_reason
from oa_base.refusal import Refusal

ERROR_DOMAIN = "openagents"
STATUS_METADATA_KEY = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 1000
"""Maximum length of a message on the wire. gRPC refuses headers of more than 8 KiB, and they hold a message twice:
once with three characters for each byte that isn't ASCII, once in base64."""
MAX_METADATA_BYTES = 1500
"""Maximum size of the metadata on the wire: names, values and the field together."""
LOST_STATUS = "Internal error from Core"
"""What grpc.aio says, with the code INTERNAL, of a call that the other side ended while a message was being sent. The
status that the other side gave is lost."""
# What gRPC says of a page of a proxy: a 404 for example, while the proxy is starting and has no route yet. It gives the
# code of a service which does not have the method, or does not let the caller in.
_PAGE = "http2 header with status:"
# Codes of a proxy that lets nobody in. A service of ours says why: without a reason, nothing is said about the token.
_GUARDS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
_FIELD_KEY = "field"

# The reason for a status without our ErrorInfo, made by a transport or a proxy and not by one of our handlers.
_REASON_OF_CODE: Mapping[str, str] = MappingProxyType(
    {
        "CANCELLED": "cancelled",
        "INVALID_ARGUMENT": "invalid_value",
        "DEADLINE_EXCEEDED": "deadline_exceeded",
        "NOT_FOUND": "not_found",
        "ALREADY_EXISTS": "already_exists",
        "RESOURCE_EXHAUSTED": "overloaded",
        "UNIMPLEMENTED": "unknown_method",
        "UNAVAILABLE": "unavailable",
    }
)


def to_status(refusal: Refusal) -> status_pb2.Status:
    """Return the refusal as google.rpc.Status; texts beyond the limits are cut."""
    field = {_FIELD_KEY: refusal.field} if refusal.field else {}
    metadata = _limited({**field, **refusal.metadata})
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=ERROR_DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=code_pb2.Code.Value(refusal.info.grpc_code), message=wire_message(refusal))
    for detail in (info, *_retry_details(refusal)):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def wire_message(refusal: Refusal) -> str:
    """Return the refusal's message as it is sent."""
    return _cut(refusal.message, MAX_MESSAGE_BYTES)


def _limited(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return as much of `metadata` as there is room for, in order."""
    room = MAX_METADATA_BYTES
    kept = {}
    for key, value in metadata.items():
        room -= len(key.encode())
        if room <= 0:
            break
        kept[key] = _cut(value, room)
        room -= len(kept[key].encode())
    return kept


def _cut(text: str, max_bytes: int) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _retry_details(refusal: Refusal) -> list[error_details_pb2.RetryInfo]:
    if not refusal.retry_hint_ms:
        return []
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(refusal.retry_hint_ms)
    return [error_details_pb2.RetryInfo(retry_delay=delay)]


def from_status_bytes(data: bytes) -> Refusal | None:
    """Return the refusal in a serialized google.rpc.Status; None when it holds none of ours."""
    try:
        status = status_pb2.Status.FromString(data)
        return _from_status(status)
    except DecodeError:
        return None


def _from_status(status: status_pb2.Status) -> Refusal | None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
    if info.domain != ERROR_DOMAIN or not is_reason(info.reason):
        return None
    metadata = dict(info.metadata)
    field = metadata.pop(_FIELD_KEY, "")
    delay_ms = max(0, retry.retry_delay.ToMilliseconds())
    return Refusal(info.reason, status.message, field=field, metadata=metadata, retry_after_ms=delay_ms)


def from_code(grpc_code: str, details: str) -> Refusal:
    """Return the nearest refusal for a bare gRPC code ("UNAVAILABLE") with its text."""
    if grpc_code == "INTERNAL" and details == LOST_STATUS:
        advice = "call again, or look at the proxy in front of the service"
        return Refusal(
            "unavailable", f"gRPC lost the reason, because the call was ended while it was sending; {advice}"
        )
    if _PAGE in details or grpc_code in _GUARDS:
        said = _cut(details, MAX_MESSAGE_BYTES) or f"the call ended with {grpc_code}"
        return Refusal("unavailable", f"{said}; look at the proxy in front of the service, whose answer this is")
    reason = _REASON_OF_CODE.get(grpc_code, "internal")
    if grpc_code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
        reason = "request_too_large"
    whose = "the service that was called, and of the proxy in front of it"
    text = f"the call ended with {grpc_code} and without a word; look into the logs of {whose}"
    return Refusal(reason, _cut(details, MAX_MESSAGE_BYTES) or text)
