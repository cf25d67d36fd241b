"""A refusal in an answer over HTTP: the JSON of Connect's unary errors, `{"code", "message", "details"}`.

Needs `googleapis-common-protos`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from oa_base.refusal import Refusal
from oa_wire.status import from_code, from_status_bytes, to_status
from oa_wire.strict.text import check_whole, read_any_base64, read_json

PROTO = "application/proto"
"""The content type of requests and answers in protobuf."""
_TYPE_URL = "type.googleapis.com/"
_DETAIL_TYPES: tuple[type[Message], ...] = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)
# The reason for a bare HTTP status, which comes from a proxy or from something that is not the edge at all. It says
# nothing about the request: a proxy says 404 while it has no route yet, and 401 or 403 while it lets nobody in.
_REASON_OF_STATUS: Mapping[int, str] = MappingProxyType(
    {
        401: "unavailable",
        403: "unavailable",
        404: "unavailable",
        408: "deadline_exceeded",
        413: "request_too_large",
        415: "unsupported_media_type",
        429: "rate_limited",
        502: "unavailable",
        503: "unavailable",
        504: "deadline_exceeded",
        511: "unavailable",
    }
)
_REDIRECTS = range(300, 400)


def connect_code(grpc_code: str) -> str:
    """Connect's name of a gRPC status code. Connect spells one of them differently."""
    return "canceled" if grpc_code == "CANCELLED" else grpc_code.lower()


def to_connect(refusal: Refusal) -> bytes:
    """The JSON body, whatever the codec of the request, because Connect's unary errors are always JSON.

    The details are the same as in gRPC: ErrorInfo (reason, domain, metadata with the `field` at fault), and RetryInfo
    if waiting helps.
    """
    status = to_status(refusal)
    code = refusal.info.grpc_code
    document = {
        "code": connect_code(code),
        "message": status.message,
        "details": [_detail(packed) for packed in status.details],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _detail(packed: any_pb2.Any) -> dict[str, object]:
    """A detail: its bytes for programs (base64 without padding), and `debug` for people with curl."""
    value = base64.b64encode(packed.value).rstrip(b"=").decode()
    name = packed.TypeName()
    shown = next(made for made in _DETAIL_TYPES if made.DESCRIPTOR.full_name == name)
    return {"type": name, "value": value, "debug": json_format.MessageToDict(shown.FromString(packed.value))}


def is_proto(content_type: str) -> bool:
    """Whether an answer with this Content-Type has a message in protobuf. The page of a proxy has not, and an empty one
    could be read as a message in which every field has its default."""
    return content_type.partition(";")[0].strip().lower() == PROTO


def from_connect(http_status: int, body: bytes, retry_after_ms: int = 0) -> Refusal:
    """Return the refusal in an answer of the edge, or the nearest one for an answer that is not the edge's.

    `retry_after_ms` comes from the header Retry-After and is used if the body has no such time.
    """
    error = _error_object(body)
    if error is None:
        reason = _REASON_OF_STATUS.get(http_status, "internal")
        text = f"the answer was a bare HTTP {http_status}; check what answers at this address"
        if http_status in _REDIRECTS:
            text = f"the answer was a redirect (HTTP {http_status}), and none is followed; give the address it leads to"
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
        text = body.decode()
        check_whole(text)  # half a character could neither be shown nor sent on
        error = read_json(text)
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
