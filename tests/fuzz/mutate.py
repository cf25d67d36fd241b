"""Bad requests, made from a good one and the descriptor of its message.

A mutation is a good request with one thing wrong, the reasons that it may be refused for, and the path of the field
that the refusal has to name. JSON is what is mutated: it can say everything that protobuf can, and a good deal that
protobuf can't (wrong types, unknown fields); those are `json_only`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from openagents.common.v1 import options_pb2

Json = Any
Keys = tuple[str | int, ...]
Rules = options_pb2.FieldRules
MARK = "zq9x"
"""Stands in every bad text, so that an echo of it is found."""
BROKEN_RULE = frozenset({"missing_field", "invalid_value", "invalid_enum", "missing_payload", "payload_mismatch"})
UNREADABLE = frozenset({"malformed_message"})
MAX_ELEMENTS = 16
"""How many elements of a list are mutated, one after the other."""
_NUMBER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}


@dataclass(frozen=True)
class Mutation:
    """A request with one thing wrong. `field` is empty where the whole can't be read.

    With `may_pass` nothing is wrong by the contract's rules, only odd: it may be taken, or refused for any reason that
    is the caller's.
    """

    what: str
    body: Json
    reasons: frozenset[str]
    field: str = ""
    json_only: bool = False
    may_pass: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.field}"


@dataclass(frozen=True)
class _Place:
    """Where we are in the request: the whole of it, the keys down to here, and the path that a refusal would name."""

    root: Json
    keys: Keys = ()
    path: str = ""

    def member(self, name: str) -> _Place:
        return _Place(self.root, (*self.keys, name), f"{self.path}.{name}".lstrip("."))

    def element(self, index: int) -> _Place:
        return _Place(self.root, (*self.keys, index), f"{self.path}[{index}]")

    def broken(self, what: str, value: Json) -> Mutation:
        return Mutation(what, replaced(self.root, self.keys, value), BROKEN_RULE, self.path)

    def unreadable(self, what: str, value: Json) -> Mutation:
        return Mutation(what, replaced(self.root, self.keys, value), UNREADABLE, self.path, json_only=True)

    def odd(self, what: str, value: Json) -> Mutation:
        return Mutation(what, replaced(self.root, self.keys, value), frozenset(), self.path, may_pass=True)

    def absent(self, what: str = "absent") -> Mutation:
        return Mutation(what, _without(self.root, self.keys), BROKEN_RULE, self.path)


def mutations(descriptor: Descriptor, good: Mapping[str, Json]) -> Iterator[Mutation]:
    """Everything that can be wrong with `good`: a request of message `descriptor`, in JSON with proto field names."""
    yield from _in_message(descriptor, good, _Place(good))
    for what, body in (("a list", [good]), ("a word", MARK), ("null", None), ("a number", 7)):
        yield Mutation(f"{what} for the message", body, UNREADABLE, json_only=True)


def _in_message(descriptor: Descriptor, here: Mapping[str, Json], place: _Place) -> Iterator[Mutation]:
    yield replace(place.member(f"no_such_{MARK}").unreadable("unknown field", MARK), field=place.path)
    for oneof in descriptor.oneofs:
        names = [field.name for field in oneof.fields]
        present = next((name for name in names if name in here), None)
        if len(names) > 1 and present:
            where = f"{place.path}.{oneof.name}".lstrip(".")
            yield replace(place.member(present).absent("no member of the oneof"), field=where)
            another = next(name for name in names if name != present)
            twice = place.member(another).unreadable("two members of the oneof", {})
            yield replace(twice, field=place.path)
    for field in descriptor.fields:
        yield from _in_field(field, here, place.member(field.name))


def _in_field(field: FieldDescriptor, here: Mapping[str, Json], place: _Place) -> Iterator[Mutation]:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    present = field.name in here
    if (rules.required or rules.min_items) and present:
        yield place.absent()
    if field.is_repeated:
        yield from _in_list(field, rules, here.get(field.name), place)
    elif not present and field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
        return  # setting a second member of a oneof is another mistake than the one meant
    elif field.message_type is not None:
        yield from _in_submessage(field, here.get(field.name), place)
    else:
        yield from _scalars(field, rules, place)


def _in_submessage(field: FieldDescriptor, value: Json, place: _Place) -> Iterator[Mutation]:
    assert field.message_type is not None
    name = field.message_type.full_name
    if name == "google.protobuf.Value":
        yield place.odd("a nest", _nest(40))
        return
    yield place.unreadable("a word for a message", MARK)
    yield place.unreadable("a list for a message", [MARK])
    if name == "google.protobuf.Timestamp":
        yield from _times(place)
    elif name == "google.protobuf.Struct":
        yield place.odd("a nest", {"a": _nest(40), "\u202e\U0001f600": 1e308})
    elif value is not None:
        yield from _in_message(field.message_type, value, place)


def _times(place: _Place) -> Iterator[Mutation]:
    for what, value in (("a number", 7), ("no such day", "2026-02-30T00:00:00Z"), ("no offset", "2026-02-03T00:00:00")):
        yield place.unreadable(f"{what} for a moment", value)
    yield place.odd("the first moment", "0001-01-01T00:00:00Z")
    yield place.odd("the last moment", "9999-12-31T23:59:59.999999999Z")


def _nest(depth: int) -> Json:
    value: Json = "end"
    for _ in range(depth):
        value = [value]
    return value


def _in_list(field: FieldDescriptor, rules: Rules, values: Json, place: _Place) -> Iterator[Mutation]:
    yield place.unreadable("a word for a list", MARK)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from _in_map(rules, place)
        return
    if not values:
        return
    yield place.unreadable("an object for a list", {MARK: 1})
    if rules.max_items:
        yield place.broken("too many", [values[0]] * (rules.max_items + 1))
    for index, value in enumerate(values[:MAX_ELEMENTS]):
        if field.message_type is not None:
            yield from _in_message(field.message_type, value, place.element(index))
        elif index == 0:
            yield from _scalars(field, rules, place.element(index))


def _in_map(rules: Rules, place: _Place) -> Iterator[Mutation]:
    """All maps of the contracts are from text to text."""
    yield place.unreadable("a list for a map", [MARK])
    yield place.unreadable("an object in a map", {"key": {"a": MARK}})
    yield place.broken("a NUL in a value", {"key": f"{MARK}\0"})
    yield place.broken("a NUL in a key", {f"{MARK}\0": "value"})
    yield place.odd("strange keys", {"": "", "\u202eabc\u0301": "\U0001f600" * 1000, "=": "="})
    if rules.max_items:
        yield place.broken("too many", {f"{MARK}{number}": "" for number in range(rules.max_items + 1)})


def _scalars(field: FieldDescriptor, rules: Rules, place: _Place) -> Iterator[Mutation]:
    yield place.unreadable("an object for a scalar", {MARK: 1})
    yield place.unreadable("a list for a scalar", [MARK])
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_STRING:
        yield from _texts(rules, place)
    elif kind in _NUMBER_BITS:
        yield from _numbers(kind, rules, place)
    elif kind == FieldDescriptor.CPPTYPE_BOOL:
        yield place.unreadable("a word for a truth", MARK)
    elif kind == FieldDescriptor.CPPTYPE_ENUM:
        yield place.unreadable("unknown enum name", MARK.upper())
        yield place.broken("unknown enum number", 9999)
        yield place.broken("negative enum number", -1)
        if rules.required:
            yield place.broken("the unspecified value", 0)


def _texts(rules: Rules, place: _Place) -> Iterator[Mutation]:
    yield place.unreadable("a number for text", 7)
    yield place.unreadable("half a surrogate pair", f"{MARK}\ud800")
    yield place.broken("a NUL", f"{MARK}\0b")
    if rules.required:
        yield place.broken("empty", "")
    if rules.max_length:
        yield place.broken("too long", (MARK * (rules.max_length // len(MARK) + 1))[: rules.max_length + 1])
    if rules.pattern:
        yield place.broken("not the pattern", f"☃ {MARK} ' OR 1=1 --")
        yield place.broken("a line more", f"{MARK}\n")
        yield place.broken("right-to-left and combining", f"\u202e{MARK} \u0301")
    else:
        yield place.odd("right-to-left, combining, beyond the BMP", "\u202eabc\u0301\U0001f600\ufffe")
        yield place.odd("quotes", "' OR 1=1 -- \"; \\ %s {} $(id)"[: rules.max_length or None])
    if not rules.max_length:
        yield place.odd("long", "é" * 20_000)


def _numbers(kind: int, rules: Rules, place: _Place) -> Iterator[Mutation]:
    bits = _NUMBER_BITS[kind]
    for what, value in (("a word", MARK), ("a fraction", 1.5), ("a truth", True), ("not a number", "NaN")):
        yield place.unreadable(f"{what} for a number", value)
    yield place.unreadable("a number beyond its bits", 2**bits)
    yield place.unreadable("a number beyond all bits", 10**400)
    if kind in _SIGNED:
        yield place.odd("lowest", -(2**bits))
    else:
        yield place.unreadable("negative", -1)
    if rules.bounded:
        yield place.broken("above the range", rules.maximum + 1)
        if rules.minimum > 0:
            yield place.broken("below the range", rules.minimum - 1)
    elif rules.required:
        yield place.broken("zero", 0)
    if not rules.bounded:
        yield place.odd("highest", 2**bits - 1)
        yield place.odd("half of the highest, and one", 2 ** (bits - 1))


def replaced(root: Json, keys: Keys, value: Json) -> Json:
    """A copy of the request with another value at this place."""
    changed = copy.deepcopy(root)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return changed


def _without(root: Json, keys: Keys) -> Json:
    changed = copy.deepcopy(root)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return changed
