"""The only validator of messages: it checks a message against the `FieldRules` in its own descriptors.

The rules are in the proto files beside the fields (`openagents.common.v1.rules`). With or without rules, it checks that
a oneof has a member, because in these contracts a oneof always says "one of these" (`missing_payload`); that an enum
holds a number that it has (`invalid_enum`); that a string holds no NUL, which no database and no operating system takes
(`invalid_value`); and that a time is in the years 1 to 9999 (`invalid_value`). Refusals name the field
("spec.exec.argv[2]") and never echo its value. Unknown fields pass here: doors that refuse them read with
`strict.fields`. Other messages of google.protobuf are not checked.

Checks are compiled once per message type; a message of ten fields costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_wire.pattern_words import said_of
from openagents.common.v1 import options_pb2

Check = Callable[[Any], None]
"""Takes a message (for a field's check: the value) and raises Refusal with the field relative to it."""

_WELL_KNOWN = "google.protobuf."


def check_rules(message: Message) -> None:
    """Raise Refusal for the first field of `message`, at any depth, that breaks a rule; otherwise do nothing.

    Reasons: `missing_field`, `missing_payload`, `invalid_value`, `invalid_enum`.
    """
    for check in _checks(message.DESCRIPTOR):
        check(message)


@cache
def _checks(descriptor: Descriptor) -> tuple[Check, ...]:
    """One check for each oneof, then one for each field that has something to check, in the order of the fields."""
    if descriptor.full_name.startswith(_WELL_KNOWN):
        return ()
    oneofs = [oneof for oneof in descriptor.oneofs if not is_synthetic(oneof)]
    members = {field.name for oneof in oneofs for field in oneof.fields}
    made = (_field_check(field) for field in descriptor.fields if field.name not in members)
    return (*map(_oneof_check, oneofs), *(check for check in made if check is not None))


def _oneof_check(oneof: Any) -> Check:
    # Only the member that is set is checked: an event has a dozen members.
    name = oneof.name
    checks = {
        field.name: _value_check(field, field.GetOptions().Extensions[options_pb2.rules]) for field in oneof.fields
    }

    def check(message: Any) -> None:
        member = message.WhichOneof(name)
        if member is None:
            raise Refusal("missing_payload", f"one of the members of {name} must be set", field=name)
        value_check = checks[member]
        if value_check is not None:
            try:
                value_check(getattr(message, member))
            except Refusal as refusal:
                raise refusal.under(member) from None

    return check


def is_synthetic(oneof: Any) -> bool:
    """Whether a oneof stands for the `optional` of its one field: protoc names it after the field, with an
    underscore."""
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"


def _field_check(field: FieldDescriptor) -> Check | None:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_check(field, rules)
    value_check = _value_check(field, rules)
    if field.is_repeated:
        return _list_check(field, rules, value_check)
    if field.has_presence:
        return _present_check(field, rules, value_check)
    return _plain_check(field, rules, value_check)


# ------------------------------------------------------------------------------------------------- kinds of fields


def _map_check(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Check:
    assert field.message_type is not None
    name, count_check = field.name, _count_check(field.name, rules)
    parts = field.message_type.fields_by_name
    key_check, value_check = _value_check(parts["key"], rules), _value_check(parts["value"], rules)
    keys_are_text = parts["value"].message_type is None

    def check(message: Any) -> None:
        entries = getattr(message, name)
        count_check(len(entries))
        for key in entries:
            _run(key_check, key, name)
            if keys_are_text:
                _run(value_check, entries[key], name)

    return check


def _list_check(field: FieldDescriptor, rules: options_pb2.FieldRules, value_check: Check | None) -> Check | None:
    name, count_check = field.name, _count_check(field.name, rules)
    bounded = rules.required or rules.min_items or rules.max_items
    if not bounded and value_check is None:
        return None

    def check(message: Any) -> None:
        values = getattr(message, name)
        count_check(len(values))
        if value_check is None:
            return
        for index, value in enumerate(values):
            try:
                value_check(value)
            except Refusal as refusal:
                raise refusal.under(f"{name}[{index}]") from None

    return check


def _present_check(field: FieldDescriptor, rules: options_pb2.FieldRules, value_check: Check | None) -> Check | None:
    """For messages, members of a oneof and `optional` fields: an absent field has no value to check."""
    name, required, is_message = field.name, rules.required, field.message_type is not None
    if not required and value_check is None:
        return None

    def check(message: Any) -> None:
        if required and not (message.HasField(name) and (is_message or getattr(message, name))):
            raise _missing(name)
        if message.HasField(name):
            _run(value_check, getattr(message, name), name)

    return check


def _plain_check(field: FieldDescriptor, rules: options_pb2.FieldRules, value_check: Check | None) -> Check | None:
    name, required, is_enum = field.name, rules.required, field.enum_type is not None
    if not required and value_check is None:
        return None

    def check(message: Any) -> None:
        value = getattr(message, name)
        if required and not value:
            if is_enum:
                raise Refusal("invalid_enum", f"{name} must be one of its named values", field=name)
            raise _missing(name)
        _run(value_check, value, name)

    return check


def _run(check: Check | None, value: Any, name: str) -> None:
    if check is None:
        return
    try:
        check(value)
    except Refusal as refusal:
        raise refusal.under(name) from None


# ------------------------------------------------------------------------------------------------- values


def _value_check(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Check | None:
    """Return the check of one value. Its refusals have an empty field, which the caller fills in."""
    if field.message_type is not None:
        return _message_check(field.message_type)
    if field.enum_type is not None:
        return _enum_check(frozenset(field.enum_type.values_by_number))
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return _text_check(rules, is_text=field.type == FieldDescriptor.TYPE_STRING)
    return _number_check(rules.minimum, rules.maximum) if rules.bounded else None


def _message_check(descriptor: Descriptor) -> Check | None:
    if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
        return _check_time
    if descriptor.full_name.startswith(_WELL_KNOWN):
        return None

    checks: tuple[Check, ...] | None = None

    def check(message: Any) -> None:
        nonlocal checks
        if checks is None:
            # Looked up when used, not when made, because a message may hold messages of its own type.
            checks = _checks(descriptor)
        for one in checks:
            one(message)

    return check


def _check_time(value: Any) -> None:
    try:
        value.ToNanoseconds()
    except ValueError:
        text = "it must be a time of the years 1 to 9999, with 0 to 999999999 nanoseconds"
        raise Refusal("invalid_value", text) from None


def _enum_check(numbers: frozenset[int]) -> Check:
    def check(value: Any) -> None:
        if value not in numbers:
            raise Refusal("invalid_enum", "the enum has no such value; use one that it names")

    return check


def _text_check(rules: options_pb2.FieldRules, *, is_text: bool) -> Check | None:
    lowest, highest = rules.min_length, rules.max_length
    pattern = re.compile(rules.pattern) if rules.pattern else None
    said = said_of(rules.pattern)
    unit = "characters" if is_text else "bytes"

    def check(value: Any) -> None:
        if not value:
            return
        if highest and len(value) > highest:
            raise Refusal("invalid_value", f"it may have at most {highest} {unit}")
        if len(value) < lowest:
            raise Refusal("invalid_value", f"it needs at least {lowest} {unit}")
        if is_text and "\x00" in value:
            raise Refusal("invalid_value", "it must not hold the character NUL")
        if pattern is not None and not pattern.fullmatch(value):
            raise Refusal("invalid_value", said)

    return check if is_text or lowest or highest else None


def _number_check(minimum: int, maximum: int) -> Check:
    def check(value: Any) -> None:
        if not minimum <= value <= maximum:
            raise Refusal("invalid_value", f"it must be between {minimum} and {maximum}")

    return check


def _count_check(name: str, rules: options_pb2.FieldRules) -> Callable[[int], None]:
    required, lowest, highest = rules.required or rules.min_items > 0, rules.min_items, rules.max_items

    def check(count: int) -> None:
        if required and count == 0:
            raise _missing(name)
        if count < lowest:
            raise Refusal("invalid_value", f"{name} needs at least {lowest} elements", field=name)
        if highest and count > highest:
            raise Refusal("invalid_value", f"{name} may have at most {highest} elements", field=name)

    return check


def _missing(name: str) -> Refusal:
    return Refusal("missing_field", f"{name} must be set", field=name)
