"""Strict proto3 JSON: a field that the contract doesn't know is refused, and a refusal names the field at fault.

protobuf's own parser is lenient about shapes (it reads a text or a list in place of an object as an empty message) and
about the texts of numbers (`scalars`), and names fields only in prose. So this module checks these first, and
when the parser refuses a value, it searches for the smallest part that the parser refuses by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from oa_base.refusal import Refusal
from oa_wire.strict.scalars import check_key, check_scalar, check_time
from oa_wire.strict.text import Unstrict, read_json

_WELL_KNOWN = "google.protobuf."
_WRAPPERS = frozenset(
    f"{_WELL_KNOWN}{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
"""Messages whose JSON is that of the plain value in them."""
# Everything that the parser raises for an invalid value: texts with half a surrogate pair, objects as numbers, whole
# numbers that no double holds, …
_UNPARSABLE = (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


def merge_json(text: str | bytes, message: Message) -> None:
    """Read `text` into `message`. Raises Refusal `malformed_message` with the path of the field. It echoes no value
    and no name that isn't the contract's."""
    try:
        document = read_json(text)
    except Unstrict as error:
        raise _refused("", str(error)) from None
    except ValueError:
        raise _refused("", f"the body must be {message.DESCRIPTOR.full_name} in JSON") from None
    merge_document(document, message)


def merge_document(document: Any, message: Message) -> None:
    """Like `merge_json`, for a document that `read_json` has read."""
    descriptor: Any = message.DESCRIPTOR
    _check_object(document, descriptor, "")
    try:
        json_format.ParseDict(document, message)
    except _UNPARSABLE:
        path = _culprit(document, descriptor, "")
        raise _refused(path, f"{path or 'the body'} must hold a value of its type") from None
    _check_readable(message)


def _check_readable(message: Message) -> None:
    """Refuse a message that nobody could read after us: JSON may nest deeper than readers of the binary form go."""
    try:
        type(message).FromString(message.SerializeToString())
    except (DecodeError, EncodeError):
        raise _refused("", "the body is nested deeper than the contract's readers go; make it flatter") from None


# ------------------------------------------------------------------------------------------------- shapes


def _check_object(value: Any, descriptor: Descriptor, path: str) -> None:
    if not isinstance(value, dict):
        raise _refused(path, f"{path or 'the body'} must be a JSON object")
    seen: set[str] = set()
    chosen: set[str] = set()
    for number, (key, inner) in enumerate(value.items(), start=1):
        field = _field(descriptor, key)
        if field is None:
            where = path or "the body"
            raise _refused(path, f"member {number} of {where} is no field of {descriptor.full_name}; leave it out")
        if field.name in seen:
            raise _refused(_joined(path, field.name), f"{field.name} stands under both of its names; use one")
        seen.add(field.name)
        # null means that the field isn't set.
        if inner is not None:
            _check_oneof(field, chosen, path)
            _check_field(inner, field, _joined(path, field.name))


def _check_oneof(field: FieldDescriptor, chosen: set[str], path: str) -> None:
    """Refuse a second member of a oneof. `chosen`: the oneofs that have one."""
    oneof = field.containing_oneof
    if oneof is None:
        return
    if oneof.name in chosen:
        raise _refused(path, f"{path or 'the body'} has two members of {oneof.name}; send one")
    chosen.add(oneof.name)


def _check_field(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.is_repeated and not isinstance(value, dict if _is_map(field) else list):
        raise _refused(path, f"{path} must be a JSON {'object' if _is_map(field) else 'array'}")
    if _is_map(field):
        _check_keys(value, field, path)
    element, scalar = _element_type(field), _scalar(field)
    for where, inner in _parts(value, field, path):
        if element is not None and not element.full_name.startswith(_WELL_KNOWN):
            _check_object(inner, element, where)
        else:
            _check_value(inner, scalar, element, where)


def _check_keys(value: dict[str, Any], field: FieldDescriptor, path: str) -> None:
    assert field.message_type is not None
    try:
        for key in value:
            check_key(key, field.message_type.fields_by_name["key"])
    except ValueError as error:
        raise _refused(path, f"{path} must be {error}") from None


def _check_value(value: Any, scalar: FieldDescriptor | None, element: Descriptor | None, path: str) -> None:
    """Check a value that is no object of the contract's. `scalar`: the field that holds it; None for a well-known
    message, whose type is `element`."""
    try:
        if scalar is not None:
            check_scalar(value, scalar)
        elif element is not None:
            check_time(value, element.full_name)
    except ValueError as error:
        raise _refused(path, f"{path} must be {error}") from None


# ------------------------------------------------------------------------------------------------- who is at fault


def _culprit(value: Any, descriptor: Descriptor, path: str) -> str:
    """Return the path of the smallest part that is refused by itself, in an object of the right shape."""
    for key, inner in value.items():
        field = _field(descriptor, key)
        if field is None or _parses({key: inner}, descriptor):
            continue
        here = _joined(path, field.name)
        return _culprit_in(inner, field, here, key, descriptor)
    return path  # each part is valid but the whole isn't


def _culprit_in(value: Any, field: FieldDescriptor, path: str, key: str, descriptor: Descriptor) -> str:
    where, inner = path, value
    if field.is_repeated:
        where, inner = next(islice(_parts(value, field, path), _refused_part(value, key, descriptor), None))
    element = _element_type(field)
    nested = isinstance(inner, dict) and element is not None and not element.full_name.startswith(_WELL_KNOWN)
    return _culprit(inner, element, where) if nested and element else where


def _refused_part(value: Any, key: str, descriptor: Descriptor) -> int:
    """Return the number of the first part of a list or map that is refused by itself. It is looked for by halves, so
    that refusing a large body costs no more than reading it a few times."""
    parts = list(value.items()) if isinstance(value, dict) else value
    first, beyond = 0, len(parts)
    while beyond - first > 1:
        middle = (first + beyond) // 2
        half = parts[first:middle]
        if _parses({key: dict(half) if isinstance(value, dict) else half}, descriptor):
            first = middle
        else:
            beyond = middle
    return first


def _parses(document: dict[str, Any], descriptor: Descriptor) -> bool:
    try:
        json_format.ParseDict(document, GetMessageClass(descriptor)())
    except _UNPARSABLE:
        return False
    return True


# ------------------------------------------------------------------------------------------------- fields


def _parts(value: Any, field: FieldDescriptor, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values in a field's JSON with their paths: one, or each of a list or map. A map's keys come from the
    sender, and no path has them."""
    if not field.is_repeated:
        yield path, value
    elif _is_map(field):
        for inner in value.values():
            yield path, inner
    else:
        for index, inner in enumerate(value):
            yield f"{path}[{index}]", inner


def _element_type(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type of a field's values; None for plain values."""
    if _is_map(field):
        assert field.message_type is not None
        return field.message_type.fields_by_name["value"].message_type
    return field.message_type


def _scalar(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the field that holds plain values: this one, the value of a map, or what is in a wrapper; None for one
    that holds other messages."""
    if _is_map(field):
        assert field.message_type is not None
        field = field.message_type.fields_by_name["value"]
    if field.message_type is None:
        return field
    wrapped = field.message_type.full_name in _WRAPPERS
    return field.message_type.fields_by_name["value"] if wrapped else None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.is_repeated and field.message_type.GetOptions().map_entry


def _field(descriptor: Descriptor, key: str) -> FieldDescriptor | None:
    """Return the field of a JSON key, which is its JSON name, or its name in the contract (both are proto3 JSON)."""
    return next((field for field in descriptor.fields if key in (field.json_name, field.name)), None)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _refused(field: str, message: str) -> Refusal:
    return Refusal("malformed_message", message, field=field)
