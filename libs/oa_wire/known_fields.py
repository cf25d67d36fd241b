"""Protobuf as strict as `strict_json`: a field that the contract doesn't have is refused, and not passed over.

protobuf's own reader keeps such fields apart, at any depth, and serializes them with the message; that is how they are
noticed here, without a look at each field. A known number with another wire type counts as such a field. What an entry
of a map holds beside its key and its value is the one thing that the reader drops at once; JSON has no words for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from oa_base.refusal import Refusal

M = TypeVar("M", bound=Message)
MAX_LOOKED_AT = 1000
"""So many messages of a body are looked at for the one to name: a large body must not cost more for being refused."""


def read_known(data: bytes, message_type: type[M]) -> M:
    """The message in `data`. Raises DecodeError for what is no message, and Refusal `malformed_message` for one with a
    field that the contract doesn't have, with the path of the message around it; nothing of the field is echoed."""
    message = message_type.FromString(data)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise _refused(message_type.FromString(data))
    return message


def _refused(message: Message) -> Refusal:
    looked_at = islice(_messages(message, ""), MAX_LOOKED_AT)
    path, found = next(((path, part) for path, part in looked_at if len(UnknownFieldSet(part))), ("", message))
    text = (
        f"{path or 'the body'} holds a field that {found.DESCRIPTOR.full_name} doesn't have, or has of another type; "
        "leave it out, or use a client that is not newer than the site"
    )
    return Refusal("malformed_message", text, field=path)


def _messages(message: Message, path: str) -> Iterator[tuple[str, Message]]:
    """The message and all within it, each with its path. A map's keys are the sender's own words: no path has them."""
    yield path, message
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        for where, part in _values(field, value, name):
            yield from _messages(part, where)


def _values(field: FieldDescriptor, value: Any, path: str) -> Iterator[tuple[str, Message]]:
    if field.message_type is None:
        return
    if not field.is_repeated:
        yield path, value
    elif field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            for part in value.values():
                yield path, part
    else:
        for index, part in enumerate(value):
            yield f"{path}[{index}]", part
