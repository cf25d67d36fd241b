"""Bodies of requests and answers, within limits of size and time."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from enum import Enum

from starlette.requests import ClientDisconnect, Request

from oa_base.refusal import Refusal
from services.control.edge.limits import EdgeLimits

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
BODY_GRACE_S = 5.0
"""Time before the speed of a body counts."""
GZIP_FROM_BYTES = 1024
"""Minimum size of an answer that is worth packing."""
_GZIP_LEVEL = 5
_DECLINED = re.compile(r"q=0(\.0{0,3})?")


class Packing(Enum):
    """The packing of a message. The value is the content coding."""

    NONE = "identity"
    GZIP = "gzip"


def packing_of(coding: str) -> Packing:
    """The packing that a Content-Encoding names; NONE for an empty text. Raises Refusal `unsupported_encoding`."""
    try:
        return Packing(coding.strip().lower() or Packing.NONE.value)
    except ValueError:
        known = ", ".join(packing.value for packing in Packing)
        message = f"this content encoding is not spoken here; send one of {known}"
        raise Refusal("unsupported_encoding", message, metadata={"supported": known}) from None


async def read_body(request: Request, packing: Packing, limits: EdgeLimits) -> bytes:
    """The body, unpacked. Raises Refusal `request_too_large` (packed or not), `deadline_exceeded`,
    `malformed_message`, `cancelled`."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limits.max_body_bytes:
        raise _too_large(limits.max_body_bytes)
    packed = await _received(request, limits)
    return unpacked(packed, limits.max_body_bytes) if packing is Packing.GZIP else packed


async def _received(request: Request, limits: EdgeLimits) -> bytes:
    """The body as received: complete within its time, and on average never slower than its minimum speed."""
    chunks: list[bytes] = []
    size = 0
    started = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(started + _allowed_s(0, limits)) as time:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise _too_large(limits.max_body_bytes)
                chunks.append(chunk)
                time.reschedule(started + _allowed_s(size, limits))
    except TimeoutError:
        raise Refusal("deadline_exceeded", "the body came too slowly; send it sooner") from None
    except ClientDisconnect:
        raise Refusal("cancelled", "the client went away") from None
    return b"".join(chunks)


def _allowed_s(size: int, limits: EdgeLimits) -> float:
    """How long a body may take in total once `size` bytes of it have arrived."""
    return min(BODY_GRACE_S + size / limits.min_body_bytes_per_s, limits.body_timeout_s)


def unpacked(packed: bytes, max_bytes: int) -> bytes:
    """The content of one gzip member. Never unpacks more than `max_bytes` + 1 bytes."""
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
    """The body and its headers: in gzip if the client accepts it and the size is worth it."""
    if len(body) < GZIP_FROM_BYTES or not takes_gzip(accept_encoding):
        return body, {}
    return gzip.compress(body, _GZIP_LEVEL, mtime=0), {"content-encoding": "gzip"}


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip without declining it (`gzip;q=0`; RFC 9110, 12.5.3)."""
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return not _DECLINED.fullmatch(weight.strip())
    return False


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("request_too_large", f"the request has more than {max_bytes} bytes; send a smaller one")
