"""How a request carries its message: in the body of a POST, or in the query of a GET (Connect's unary protocol)."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from oa_base.refusal import Refusal
from oa_wire.strict.text import read_any_base64
from services.control.edge.domain import check_protocol_version
from services.control.edge.door.body import Packing, packing_of, read_body, unpacked
from services.control.edge.door.codec import Codec, codec_of
from services.control.edge.limits import EdgeLimits

_ENCODINGS = {"json": Codec.JSON, "proto": Codec.PROTO}
_ONCE = ("connect", "encoding", "message", "base64", "compression")


@dataclass(frozen=True, slots=True)
class Carried:
    """What a request's head says about its message. `text` is the message itself, from the query; None in a POST."""

    codec: Codec
    packing: Packing
    text: str | None = None
    is_base64: bool = False

    async def content(self, request: Request, limits: EdgeLimits) -> bytes:
        """The unpacked message. Raises Refusal as `body.read_body` does."""
        if self.text is None:
            return await read_body(request, self.packing, limits)
        packed = _of_base64(self.text) if self.is_base64 else self.text.encode()
        return unpacked(packed, limits.max_body_bytes) if self.packing is Packing.GZIP else packed


def carried(request: Request) -> Carried:
    """Read the head of a POST or GET. Raises Refusal `unsupported_media_type`, `unsupported_encoding`,
    `unsupported_protocol_version`, and for a GET `missing_field` or `malformed_message`, naming the parameter."""
    if request.method == "GET":
        return _in_query(request)
    check_protocol_version(request.headers.get("connect-protocol-version"))
    codec = codec_of(request.headers.get("content-type", ""))
    return Carried(codec, packing_of(request.headers.get("content-encoding", "")))


def _in_query(request: Request) -> Carried:
    query = request.query_params
    for name in _ONCE:
        if len(query.getlist(name)) > 1:
            raise Refusal("malformed_message", f"the parameter {name} stands there twice; send it once", field=name)
    for name in ("message", "encoding"):
        if name not in query:
            raise Refusal("missing_field", f"a GET needs the parameter {name}; add it, or use POST", field=name)
    version = query.get("connect")
    check_protocol_version(None if version is None else version.removeprefix("v"))
    codec = _ENCODINGS.get(query["encoding"])
    if codec is None:
        message = "this encoding is not spoken here; send json or proto"
        raise Refusal("unsupported_media_type", message, field="encoding")
    return Carried(codec, packing_of(query.get("compression", "")), query["message"], query.get("base64") == "1")


def _of_base64(text: str) -> bytes:
    try:
        return read_any_base64(text)
    except ValueError:
        message = "the parameter message is not URL-safe base64; encode it so, or leave base64=1 out"
        raise Refusal("malformed_message", message, field="message") from None
