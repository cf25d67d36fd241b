"""Protobuf as strict as `json`: a field that the contract doesn't have is refused, not skipped.

protobuf's own reader keeps such fields apart, at any depth, and serializes them with the message. This module notices
them that way, without looking at each field. A known number with another wire type counts as such a field. The reader
drops only the fields that an entry of a map holds besides its key and value; JSON can't express them.
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
"""Maximum number of messages searched for the one to name, so that refusing a large body costs no more."""


def read_known(data: bytes, message_type: type[M]) -> M:
    """Return the message in `data`. Raises DecodeError for bytes that are no message, and Refusal `malformed_message`
    for one with a field that the contract doesn't have, with the path of the message around it; nothing of the field is
    echoed."""
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
    """Yield the message and all messages in it, with paths. A map's keys come from the sender: no path has them."""
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
