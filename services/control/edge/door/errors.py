"""Refusals as errors of the Connect protocol: an HTTP status and {"code", "message", "details"}."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from oa_base.refusal import Refusal
from oa_wire.status import to_status

_DETAIL_TYPES: tuple[type[Message], ...] = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)

_OF_STATUS: Mapping[int, Mapping[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    # The client is too old, not its HTTP. But a 426 must name a protocol (RFC 9110, 15.5.22), and this is the only one
    # here: a client that reads the header learns that another HTTP would not help.
    426: {"upgrade": "HTTP/1.1", "connection": "upgrade"},
}
"""Headers that an answer of this status must have."""


def connect_code(grpc_code: str) -> str:
    """Connect's name of a gRPC status code. Connect spells one of them differently."""
    return "canceled" if grpc_code == "CANCELLED" else grpc_code.lower()


def error_body(refusal: Refusal) -> bytes:
    """The JSON body, whatever the codec of the request, because Connect's unary errors are always JSON.

    The details are the same as in gRPC: ErrorInfo (reason, domain, metadata with the `field` at fault), and RetryInfo
    if waiting helps.
    """
    status = to_status(refusal)
    document = {
        "code": connect_code(refusal.info.grpc_code),
        "message": status.message,
        "details": [_detail(packed) for packed in status.details],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def error_headers(refusal: Refusal) -> Mapping[str, str]:
    """The headers of the error, which say what would be taken instead: Retry-After (whole seconds, rounded up), Allow,
    Accept-Encoding, and those that a status must have."""
    headers = dict(_OF_STATUS.get(refusal.info.http_status, {}))
    if refusal.retry_hint_ms:
        headers["retry-after"] = str(refusal.retry_hint_s)
    if refusal.reason == "method_not_allowed":
        headers["allow"] = refusal.metadata.get("allow", "POST")
    if refusal.reason == "unsupported_encoding" and not refusal.field:
        headers["accept-encoding"] = refusal.metadata.get("supported", "")
    return headers


def _detail(packed: PackedDetail) -> dict[str, object]:
    """A detail: its bytes for programs (base64 without padding), and `debug` for people with curl."""
    value = base64.b64encode(packed.value).rstrip(b"=").decode()
    name = packed.TypeName()
    shown = next(made for made in _DETAIL_TYPES if made.DESCRIPTOR.full_name == name)
    return {"type": name, "value": value, "debug": json_format.MessageToDict(shown.FromString(packed.value))}
