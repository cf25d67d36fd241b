"""Page tokens, which are opaque to callers and bound to the query that they came from."""

from __future__ import annotations

import base64
import hmac

from google.protobuf.message import DecodeError

from oa_base.refusal import Refusal
from oa_wire.strict.text import read_any_base64
from openagents.common.v1 import paging_pb2


def encode_page_token(after_key: str, query_digest: bytes) -> str:
    """Return the token of the page after `after_key`; empty when there is none."""
    if not after_key:
        return ""
    token = paging_pb2.PageToken(after_key=after_key, query_digest=query_digest)
    return base64.urlsafe_b64encode(token.SerializeToString(deterministic=True)).decode().rstrip("=")


def decode_page_token(text: str, query_digest: bytes) -> str:
    """Return the key that the page comes after; empty for the first page. Raises Refusal(invalid_page_token)."""
    if not text:
        return ""
    token = paging_pb2.PageToken()
    try:
        token.ParseFromString(read_any_base64(text))
    except (ValueError, DecodeError):
        raise _invalid() from None
    # No key of ours has a NUL, and no database takes one.
    if not token.after_key or "\x00" in token.after_key or not hmac.compare_digest(token.query_digest, query_digest):
        raise _invalid()
    return token.after_key


def _invalid() -> Refusal:
    message = "the page token is not one that this query returned; start again without one"
    return Refusal("invalid_page_token", message, field="page_token")
