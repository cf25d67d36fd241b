"""Reads a refusal in an answer of the public edge: Connect's error JSON, `{"code", "message", "details"}`.

Needs `googleapis-common-protos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import any_pb2
from google.rpc import status_pb2

from oa_base.refusal import Refusal
from oa_wire.status import from_code, from_status_bytes
from oa_wire.strict_text import read_any_base64, read_json

_TYPE_URL = "type.googleapis.com/"
# The reason for a bare HTTP status, which comes from a proxy or from something that is not the edge at all.
_REASON_OF_STATUS: Mapping[int, str] = MappingProxyType(
    {
        401: "invalid_token",
        403: "missing_scope",
        404: "unknown_method",
        408: "deadline_exceeded",
        413: "request_too_large",
        415: "unsupported_media_type",
        429: "rate_limited",
        502: "unavailable",
        503: "unavailable",
        504: "deadline_exceeded",
    }
)


def from_connect(http_status: int, body: bytes, retry_after_ms: int = 0) -> Refusal:
    """Return the refusal in an answer of the edge, or the nearest one for an answer that is not the edge's.

    `retry_after_ms` comes from the header Retry-After and is used if the body has no such time.
    """
    error = _error_object(body)
    if error is None:
        reason = _REASON_OF_STATUS.get(http_status, "internal")
        text = f"the answer was a bare HTTP {http_status}; check what answers at this address"
        return Refusal(reason, text, retry_after_ms=retry_after_ms)
    message = str(error.get("message", ""))
    refusal = from_status_bytes(_status(message, error.get("details")).SerializeToString())
    if refusal is None:
        code = str(error["code"]).upper().replace("CANCELED", "CANCELLED")
        refusal = from_code(code, message)
    if not refusal.retry_after_ms:
        refusal.retry_after_ms = retry_after_ms
    return refusal


def _error_object(body: bytes) -> dict[str, Any] | None:
    try:
        error = read_json(body)
    except ValueError:
        return None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None


def _status(message: str, details: Any) -> status_pb2.Status:
    """Return the details as google.rpc.Status. Entries that are no details are left out."""
    status = status_pb2.Status(message=message)
    for detail in details if isinstance(details, list) else []:
        try:
            data = read_any_base64(str(detail["value"]))
            status.details.append(any_pb2.Any(type_url=_TYPE_URL + str(detail["type"]), value=data))
        except (ValueError, KeyError, TypeError):
            continue
    return status
