"""Bad bytes, made from the bytes of a good request and the descriptor of its message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

UNKNOWN_FIELD = bytes([0xFA, 0x3F, 4]) + b"zq9x"
"""Field 1023, that no message has: the edge refuses it. Between services of two releases it changes nothing."""
_HIGHEST_FIELD = 2**29 - 1
_LENGTH = 2
_VARINT = 0
_GROUP = 3


@dataclass(frozen=True)
class WireMutation:
    """Bytes that are no message of the type."""

    what: str
    data: bytes

    def __str__(self) -> str:
        return self.what


def wire_mutations(descriptor: Descriptor, good: bytes) -> Iterator[WireMutation]:
    """Bytes that no reader of protobuf takes for a message of the type."""
    if good:
        yield WireMutation("the last byte missing", good[:-1])
    yield WireMutation("garbage", good + b"\xff" * 16)
    yield WireMutation("a group without an end", good + _tag(1000, _GROUP))
    yield WireMutation("an end without a group", good + _tag(1000, _GROUP + 1))
    yield WireMutation("a wire type that does not exist", good + _tag(1000, 7))
    yield WireMutation("a varint without an end", good + _tag(1000, _VARINT) + b"\xff" * 11)
    yield WireMutation("a length beyond the end", good + _tag(_HIGHEST_FIELD, _LENGTH) + b"\x7fx")
    yield WireMutation("a length beyond all memory", good + _tag(1000, _LENGTH) + b"\xff\xff\xff\xff\xff\x7f")
    yield WireMutation("groups in groups", good + _tag(1000, _GROUP) * 10_000 + _tag(1000, _GROUP + 1) * 10_000)
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield WireMutation(f"no UTF-8: {field.name}", good + _tag(field.number, _LENGTH) + b"\x02\xff\xfe")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield WireMutation(f"no message: {field.name}", good + _tag(field.number, _LENGTH) + b"\x02\xff\xff")


def nested_value(depth: int) -> bytes:
    """A google.protobuf.Value: null in a list in a list in a list …"""
    data = _tag(1, _VARINT) + b"\0"
    for _ in range(depth):
        values = _tag(1, _LENGTH) + varint(len(data)) + data
        data = _tag(6, _LENGTH) + varint(len(values)) + values
    return data


def inside(field_number: int, data: bytes) -> bytes:
    """`data` as a message in that field."""
    return _tag(field_number, _LENGTH) + varint(len(data)) + data


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """The value as protobuf writes it."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
