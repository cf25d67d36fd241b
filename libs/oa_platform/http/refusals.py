"""Answers to requests that no application has seen."""

from __future__ import annotations

from http import HTTPStatus

from oa_base.refusal import Refusal
from oa_wire.connect import to_connect


def final_answer(status: HTTPStatus, refusal: Refusal) -> bytes:
    """A whole answer, after which the connection ends. HTTP may have a more exact status than the reason has."""
    body = to_connect(refusal)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    if refusal.retry_hint_ms:
        lines.append(f"retry-after: {refusal.retry_hint_s}")
    return "\r\n".join([*lines, "", ""]).encode() + body
