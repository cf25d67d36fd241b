"""Refusals over HTTP: the JSON of Connect's unary errors, {"code", "message", "details"}."""

from __future__ import annotations

import base64
import json
from http import HTTPStatus

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from oa_base.refusal import Refusal
from oa_wire.status import to_status

_DETAIL_TYPES: tuple[type[Message], ...] = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)


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


def connect_code(grpc_code: str) -> str:
    """Connect's name of a gRPC status code. Connect spells one of them differently."""
    return "canceled" if grpc_code == "CANCELLED" else grpc_code.lower()


def final_answer(status: HTTPStatus, refusal: Refusal) -> bytes:
    """A whole answer, after which the connection ends. HTTP may have a more exact status than the reason has."""
    body = error_body(refusal)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    if refusal.retry_hint_ms:
        lines.append(f"retry-after: {refusal.retry_hint_s}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _detail(packed: PackedDetail) -> dict[str, object]:
    """A detail: its bytes for programs (base64 without padding), and `debug` for people with curl."""
    value = base64.b64encode(packed.value).rstrip(b"=").decode()
    name = packed.TypeName()
    shown = next(made for made in _DETAIL_TYPES if made.DESCRIPTOR.full_name == name)
    return {"type": name, "value": value, "debug": json_format.MessageToDict(shown.FromString(packed.value))}
