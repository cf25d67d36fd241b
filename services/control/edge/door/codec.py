"""Messages as bodies of the Connect unary protocol: strict proto3 JSON, or equally strict protobuf."""

from __future__ import annotations

import json
from enum import Enum
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from oa_base.refusal import Refusal
from oa_wire.strict.fields import read_known
from oa_wire.strict.json import merge_json

M = TypeVar("M", bound=Message)


class Codec(Enum):
    """The format of a body. The value is the media type."""

    JSON = "application/json"
    PROTO = "application/proto"


def codec_of(content_type: str) -> Codec:
    """The codec that a Content-Type names. Raises Refusal `unsupported_media_type`."""
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower()
    if charset in ("", "charset=utf-8", 'charset="utf-8"'):
        for codec in Codec:
            if media_type.strip().lower() == codec.value:
                return codec
    message = "this media type is not spoken here; send application/json or application/proto"
    raise Refusal("unsupported_media_type", message)


def decode(codec: Codec, body: bytes, message_type: type[M]) -> M:
    """The message in `body`. Raises Refusal `malformed_message`, naming the field if there is one to name. Both codecs
    refuse a field that the contract doesn't have, at any depth."""
    return _from_json(body, message_type) if codec is Codec.JSON else _from_proto(body, message_type)


def encode(codec: Codec, message: Message) -> bytes:
    """The body for `message`."""
    if codec is Codec.PROTO:
        return message.SerializeToString()
    return json.dumps(json_format.MessageToDict(message), ensure_ascii=False, separators=(",", ":")).encode()


def _from_proto(body: bytes, message_type: type[M]) -> M:
    try:
        return read_known(body, message_type)
    except DecodeError:
        message = f"the body is not a {message_type.DESCRIPTOR.full_name}; encode that message"
        raise Refusal("malformed_message", message) from None


def _from_json(body: bytes, message_type: type[M]) -> M:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("malformed_message", "the body is not UTF-8; encode the JSON so") from None
    message = message_type()
    merge_json(text, message)
    return message
