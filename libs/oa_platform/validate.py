"""One validator for every request, built from the `rules` that stand beside the fields in proto/.

`validate(message)` raises a Refusal that names the first field at fault by its path ("spec.exec.argv[2]"):

- missing_field: a `required` field is absent or empty, or a list has none of its `min_items`
- invalid_enum: a number that the enum doesn't have (in any enum field), or the unspecified value where one is required
- missing_payload: a oneof without a member. In these contracts a oneof always says "one of these"; what may be absent
  is an ordinary field
- invalid_value: length, pattern, bounds, too many elements

Unknown fields pass: a newer client may send them (proto3). Messages of google.protobuf are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from oa_errors import Refusal
from openagents.common.v1 import options_pb2

Check = Callable[[Any], None]
"""Raises a Refusal whose field is relative to the checked value."""


@dataclass(frozen=True)
class _FieldPlan:
    name: str
    is_list: bool
    is_map: bool
    has_presence: bool
    check_presence: Check | None
    check_items: Check | None
    check_value: Check | None


@dataclass(frozen=True)
class _MessagePlan:
    oneofs: tuple[str, ...]
    fields: tuple[_FieldPlan, ...]


def validate(message: Message) -> None:
    """Check `message` and everything in it; raises Refusal for the first field at fault, in order of declaration."""
    plan = _plan(message.DESCRIPTOR)
    for oneof in plan.oneofs:
        if message.WhichOneof(oneof) is None:
            raise Refusal("missing_payload", f"One of the members of {oneof} must be set.", field=oneof)
    for field in plan.fields:
        try:
            _check_field(field, message)
        except Refusal as refusal:
            raise refusal.under(field.name) from None


def _check_field(field: _FieldPlan, message: Message) -> None:
    value = getattr(message, field.name)
    if field.check_items is not None:
        field.check_items(value)
    if field.is_map:
        _check_each(field, ((f"[{key!r}]", value[key]) for key in value))
    elif field.is_list:
        _check_each(field, ((f"[{index}]", element) for index, element in enumerate(value)))
    else:
        absent = field.has_presence and not message.HasField(field.name)
        if field.check_presence is not None:
            field.check_presence(None if absent else value)
        if field.check_value is not None and not absent:
            field.check_value(value)


def _check_each(field: _FieldPlan, elements: Iterable[tuple[str, Any]]) -> None:
    if field.check_value is None:
        return
    for where, element in elements:
        try:
            field.check_value(element)
        except Refusal as refusal:
            raise refusal.under(where) from None


@cache
def _plan(descriptor: Descriptor) -> _MessagePlan:
    oneofs = tuple(oneof.name for oneof in descriptor.oneofs if not _is_synthetic(oneof))
    plans = (_plan_field(field) for field in descriptor.fields)
    return _MessagePlan(oneofs, tuple(plan for plan in plans if plan is not None))


def _is_synthetic(oneof: Any) -> bool:
    # How protoc writes `optional`: a oneof of that one field, named after it with an underscore.
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"


def _plan_field(field: FieldDescriptor) -> _FieldPlan | None:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    entry = _map_entry(field)
    values = entry.fields_by_name["value"] if entry is not None else field
    plan = _FieldPlan(
        name=field.name,
        is_list=field.is_repeated,
        is_map=entry is not None,
        has_presence=field.has_presence and not field.is_repeated,
        check_presence=_presence_check(field) if rules.required and not field.is_repeated else None,
        check_items=_items_check(rules, _has_text_keys(entry)) if field.is_repeated else None,
        check_value=_value_check(values, rules),
    )
    return plan if plan.check_presence or plan.check_items or plan.check_value else None


def _map_entry(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and field.is_repeated and message.GetOptions().map_entry else None


def _has_text_keys(entry: Descriptor | None) -> bool:
    return entry is not None and entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING


def _presence_check(field: FieldDescriptor) -> Check:
    def check(value: Any) -> None:
        if value is None or (field.message_type is None and not value):
            if field.enum_type is not None:
                raise Refusal("invalid_enum", "A value other than the unspecified one must be given.")
            raise Refusal("missing_field", "This field must be given.")

    return check


def _items_check(rules: options_pb2.FieldRules, has_text_keys: bool) -> Check:
    least = max(rules.min_items, 1 if rules.required else 0)
    check_key = _text_check(options_pb2.FieldRules(max_length=rules.max_length)) if has_text_keys else None

    def check(value: Any) -> None:
        if not value and least:
            raise Refusal("missing_field", f"At least {_count(least)} must be given.")
        if len(value) < least:
            raise Refusal("invalid_value", f"At least {_count(least)} must be given, not {len(value)}.")
        if rules.max_items and len(value) > rules.max_items:
            raise Refusal("invalid_value", f"At most {_count(rules.max_items)} may be given, not {len(value)}.")
        if check_key is not None:
            for key in value:
                check_key(key)

    return check


def _count(number: int) -> str:
    return "one element" if number == 1 else f"{number} elements"


def _value_check(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Check | None:
    """What one value of the field is checked for, an element's of a list, a value's of a map."""
    if field.message_type is not None:
        return None if field.message_type.full_name.startswith("google.protobuf.") else validate
    if field.enum_type is not None:
        return _enum_check(field.enum_type)
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        has_rules = rules.min_length or rules.max_length or rules.pattern
        return _text_check(rules) if has_rules else None
    return _number_check(rules) if rules.bounded else None


def _enum_check(enum: EnumDescriptor) -> Check:
    known = frozenset(enum.values_by_number)

    def check(value: int) -> None:
        if value not in known:
            raise Refusal("invalid_enum", f"{value} is not a value of {enum.full_name}.")

    return check


def _text_check(rules: options_pb2.FieldRules) -> Check:
    # Presence is another rule's business, so an empty text passes all of these.
    pattern = re.compile(rules.pattern) if rules.pattern else None
    least, most = rules.min_length, rules.max_length

    def check(value: str | bytes) -> None:
        if not value:
            return
        unit = "bytes" if isinstance(value, bytes) else "characters"
        if most and len(value) > most:
            raise Refusal("invalid_value", f"At most {most} {unit} are allowed, not {len(value)}.")
        if len(value) < least:
            raise Refusal("invalid_value", f"At least {least} {unit} are needed, not {len(value)}.")
        if pattern is not None and isinstance(value, str) and not pattern.fullmatch(value):
            raise Refusal("invalid_value", f"The text must have the form {rules.pattern}")

    return check


def _number_check(rules: options_pb2.FieldRules) -> Check:
    def check(value: float) -> None:
        if not rules.minimum <= value <= rules.maximum:  # also refuses NaN
            raise Refusal("invalid_value", f"The number must be from {rules.minimum} to {rules.maximum}, not {value}.")

    return check
