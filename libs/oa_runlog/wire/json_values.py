"""JSON values <-> `google.protobuf.Value` and `Struct`. Numbers are doubles, as in the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import struct_pb2

from oa_base.refusal import Refusal
from oa_runlog.events import Json


def value_to_wire(value: Json) -> struct_pb2.Value:
    """The message for a value."""
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Mapping():
            return struct_pb2.Value(struct_value=object_to_wire(value))
        case Sequence():
            elements = [value_to_wire(element) for element in value]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=elements))


def object_to_wire(value: Mapping[str, Json] | None) -> struct_pb2.Struct | None:
    """The message for an object; None for None."""
    if value is None:
        return None
    return struct_pb2.Struct(fields={name: value_to_wire(member) for name, member in value.items()})


def value_from_wire(value: struct_pb2.Value, field: str) -> Json:
    """The value in a message. Raises Refusal `invalid_value` or `missing_payload`; `field` is the value's path."""
    try:
        return _value(value)
    except Refusal as refusal:
        raise refusal.under(field) from None


def _value(value: struct_pb2.Value) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "number_value":
            if not math.isfinite(value.number_value):
                raise Refusal("invalid_value", "it must be a number that JSON has")
            return value.number_value
        case "string_value":
            return value.string_value
        case "struct_value":
            return _object(value.struct_value)
        case "list_value":
            return _list(value.list_value)
        case _:
            raise Refusal("missing_payload", "it holds a value of no kind; set one")


# The path is made for a refusal only. It holds names that the sender chose, of any length, and to make one for each
# value would take as long as all of them together, once for each.


def _list(value: struct_pb2.ListValue) -> list[Json]:
    found: list[Json] = []
    for number, element in enumerate(value.values):
        try:
            found.append(_value(element))
        except Refusal as refusal:
            raise refusal.under(f"[{number}]") from None
    return found


def _object(value: struct_pb2.Struct) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, member in sorted(value.fields.items()):
        try:
            found[name] = _value(member)
        except Refusal as refusal:
            raise refusal.under(name) from None
    return found


def optional_object(message: Any, name: str) -> dict[str, Json] | None:
    """The object in the field `name` of `message`; None when the field is absent. Raises Refusal."""
    if not message.HasField(name):
        return None
    try:
        return _object(getattr(message, name))
    except Refusal as refusal:
        raise refusal.under(name) from None
