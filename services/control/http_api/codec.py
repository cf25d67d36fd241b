"""Messages as the bodies of the Connect unary protocol: strict proto3 JSON, or protobuf."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from oa_errors import Refusal

M = TypeVar("M", bound=Message)

# How protobuf's parser says where it stands: from the outermost field inwards.
_WITHIN = re.compile(r"Failed to parse (\w+) field: ")
_UNKNOWN = re.compile(r'has no field named "([^"]{1,100})"')
_REPEATED = re.compile(r'"([^"]{1,100})" should not have multiple')
_MAX_DEPTH = 64


class Codec(Enum):
    """What a body is written in; the value is the media type."""

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
    raise Refusal("unsupported_media_type", "Send Content-Type application/json or application/proto.")


def decode(codec: Codec, body: bytes, message_type: type[M]) -> M:
    """The message in `body`. Raises Refusal `malformed_message`, naming the field where there is one to name."""
    return _from_json(body, message_type) if codec is Codec.JSON else _from_proto(body, message_type)


def encode(codec: Codec, message: Message) -> bytes:
    """The body for `message`."""
    if codec is Codec.PROTO:
        return message.SerializeToString()
    return json.dumps(json_format.MessageToDict(message), ensure_ascii=False, separators=(",", ":")).encode()


def _from_proto(body: bytes, message_type: type[M]) -> M:
    try:
        return message_type.FromString(body)
    except DecodeError:
        raise Refusal("malformed_message", f"The body is not a {message_type.DESCRIPTOR.full_name}.") from None


def _from_json(body: bytes, message_type: type[M]) -> M:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("malformed_message", "The body is not UTF-8.") from None
    message = message_type()
    try:
        json_format.Parse(text, message, max_recursion_depth=_MAX_DEPTH)
    except json_format.ParseError as error:
        raise _malformed(str(error), message) from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        # What the parser lets through from beneath: surrogates without a partner, an array as the whole, depth.
        raise _malformed("", message) from None
    return message


def _malformed(problem: str, message: Message) -> Refusal:
    # The parser's own words quote what was sent, which may be a secret: only names of fields are taken from them.
    descriptor = cast("Descriptor", message.DESCRIPTOR)  # the generated stubs name a union of two implementations
    keys = _WITHIN.findall(problem)
    if unknown := _UNKNOWN.search(problem):
        field = ".".join([*_path(keys, descriptor), unknown[1]])
        return Refusal("malformed_message", f"{descriptor.full_name} has no field {field!a} here.", field=field)
    if repeated := _REPEATED.search(problem):
        keys.append(repeated[1])
    if not keys:
        return Refusal("malformed_message", f"The body is not {descriptor.full_name} in proto3 JSON.")
    field = ".".join(_path(keys, descriptor))
    return Refusal("malformed_message", f"The value of {field} is not of the field's type.", field=field)


def _path(keys: list[str], descriptor: Descriptor) -> list[str]:
    """The keys of a JSON path as the contract names the fields."""
    names: list[str] = []
    inside: Descriptor | None = descriptor
    for key in keys:
        field = _field(inside, key)
        names.append(field.name if field else key)
        inside = field.message_type if field else None
    return names


def _field(descriptor: Descriptor | None, key: str) -> FieldDescriptor | None:
    fields = descriptor.fields if descriptor else ()
    return next((field for field in fields if key in (field.json_name, field.name)), None)
