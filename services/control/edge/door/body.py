"""Bodies in and out, within limits of size and time."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib

from starlette.requests import ClientDisconnect, Request

from oa_base.refusal import Refusal

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
GZIP_FROM_BYTES = 1024
"""Smaller answers are not worth packing."""
_GZIP_LEVEL = 5
_DECLINED = re.compile(r"q=0(\.0{0,3})?")


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body, unpacked. Raises Refusal `request_too_large` (packed or not), `deadline_exceeded`,
    `malformed_message`, `unsupported_media_type` for a packing that the edge doesn't know, `cancelled`."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Refusal("unsupported_media_type", "this content encoding is not spoken here; send gzip or none")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            packed = await _received(request, max_bytes)
    except TimeoutError:
        raise Refusal("deadline_exceeded", f"the body did not come within {timeout_s:g} s; send it sooner") from None
    return packed if encoding == "identity" else unpacked(packed, max_bytes)


async def _received(request: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refusal("cancelled", "the client went away") from None
    return b"".join(chunks)


def unpacked(packed: bytes, max_bytes: int) -> bytes:
    """The content of one gzip member; never makes more than `max_bytes` + 1 bytes of it."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        content = unpacker.decompress(packed, max_bytes + 1)
    except zlib.error:
        raise Refusal("malformed_message", "the body is not gzip; pack it, or send no Content-Encoding") from None
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal("malformed_message", "the body is not one whole gzip member; send exactly one")
    return content


def packed_if_wanted(body: bytes, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
    """The body and its headers: gzip where the client takes it and it is worth it."""
    if len(body) < GZIP_FROM_BYTES or not takes_gzip(accept_encoding):
        return body, {}
    return gzip.compress(body, _GZIP_LEVEL, mtime=0), {"content-encoding": "gzip"}


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not only to decline it (`gzip;q=0`; RFC 9110, 12.5.3)."""
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return not _DECLINED.fullmatch(weight.strip())
    return False


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("request_too_large", f"the request has more than {max_bytes} bytes; send a smaller one")
