"""Bad requests, made from a good one and the descriptor of its message.

A mutation is a good request with one thing wrong, and the path of the field that a refusal has to name. JSON is what is
mutated: it can say everything that protobuf can, and a good deal that protobuf can't (wrong types, unknown fields).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from openagents.common.v1 import options_pb2

Json = Any
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_DOUBLE,
}
_UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
FIELD_REASONS = frozenset({"missing_field", "invalid_value", "invalid_enum", "missing_payload", "payload_mismatch"})
UNREADABLE = frozenset({"malformed_message", "invalid_value", "invalid_enum"})


@dataclass(frozen=True)
class Mutation:
    """A request with one thing wrong. `field` is empty where the whole can't be read and no field need be named."""

    what: str
    body: Json
    reasons: frozenset[str]
    field: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.field}".strip()


def mutations(descriptor: Descriptor, good: dict[str, Json]) -> Iterator[Mutation]:
    """Everything that can be wrong with `good`: a request of message `descriptor`, in JSON with proto field names."""
    yield from _in_message(descriptor, good, good, "", ())
    for what, body in (("a list for the message", [good]), ("a word for the message", "x"), ("null", None)):
        yield Mutation(what, body, UNREADABLE | FIELD_REASONS)


def _in_message(
    descriptor: Descriptor, root: Json, here: dict[str, Json], path: str, keys: tuple[str | int, ...]
) -> Iterator[Mutation]:
    yield Mutation("unknown field", _with(root, (*keys, "no_such_field"), 1), UNREADABLE, path)
    for field in descriptor.fields:
        yield from _in_field(field, root, here, f"{path}.{field.name}".lstrip("."), (*keys, field.name))


def _in_field(
    field: FieldDescriptor, root: Json, here: dict[str, Json], path: str, keys: tuple[str | int, ...]
) -> Iterator[Mutation]:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    present = field.name in here
    if (rules.required or rules.min_items) and present:
        yield Mutation("absent", _without(root, keys), FIELD_REASONS, path)
    if field.is_repeated:
        yield from _in_list(field, rules, root, here, path, keys)
        return
    if not present and field.containing_oneof is not None:
        return  # setting a second member of a oneof is another mistake than the one meant
    if field.message_type is not None:
        yield Mutation("a word for a message", _with(root, keys, "x"), UNREADABLE, "")
        if present and not field.message_type.full_name.startswith("google.protobuf."):
            yield from _in_message(field.message_type, root, here[field.name], path, keys)
        return
    for what, value, reasons in _bad_values(field, rules):
        yield Mutation(what, _with(root, keys, value), reasons, path if reasons <= FIELD_REASONS else "")


def _in_list(
    field: FieldDescriptor,
    rules: options_pb2.FieldRules,
    root: Json,
    here: dict[str, Json],
    path: str,
    keys: tuple[str | int, ...],
) -> Iterator[Mutation]:
    values = here.get(field.name)
    if not values:
        return
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    yield Mutation("a word for a list", _with(root, keys, "x"), UNREADABLE, "")
    if is_map:
        return
    if rules.max_items:
        yield Mutation("too many", _with(root, keys, [values[0]] * (rules.max_items + 1)), FIELD_REASONS, path)
    if field.message_type is None:
        for what, value, reasons in _bad_values(field, rules):
            named = f"{path}[0]" if reasons <= FIELD_REASONS else ""
            yield Mutation(what, _with(root, (*keys, 0), value), reasons, named)
    elif isinstance(values[0], dict):
        yield from _in_message(field.message_type, root, values[0], f"{path}[0]", (*keys, 0))


def _bad_values(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Iterator[tuple[str, Json, frozenset[str]]]:
    yield "an object for a scalar", {"a": 1}, UNREADABLE
    yield "a list for a scalar", [1, 2], UNREADABLE
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_STRING:
        yield "a number for text", 7, UNREADABLE
        yield "a NUL", "a\x00b", FIELD_REASONS
        if rules.max_length:
            yield "too long", "x" * (rules.max_length + 1), FIELD_REASONS
        if rules.pattern:
            yield "not the pattern", "☃ ' OR 1=1 --", FIELD_REASONS
            yield "right-to-left and combining", "\u202eabc\u0301", FIELD_REASONS
    elif kind in _NUMBERS:
        yield "a word for a number", "seven", UNREADABLE
        yield "a number beyond 64 bits", 2**70, UNREADABLE
        yield "not a number", "NaN", UNREADABLE
        if kind in _UNSIGNED:
            yield "negative", -1, UNREADABLE
        if rules.bounded:
            yield "above the range", rules.maximum + 1, FIELD_REASONS
    elif kind == FieldDescriptor.CPPTYPE_BOOL:
        yield "a word for a truth", "perhaps", UNREADABLE
    elif kind == FieldDescriptor.CPPTYPE_ENUM:
        yield "unknown enum number", 9999, UNREADABLE
        yield "unknown enum name", "NO_SUCH_VALUE", UNREADABLE


def _with(root: Json, keys: tuple[str | int, ...], value: Json) -> Json:
    changed = copy.deepcopy(root)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return changed


def _without(root: Json, keys: tuple[str | int, ...]) -> Json:
    changed = copy.deepcopy(root)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return changed
