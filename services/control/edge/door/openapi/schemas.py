"""Messages as JSON Schemas, made from the descriptors and from the rules that `oa_wire.rules` checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from oa_wire.rules import is_synthetic
from openagents.common.v1 import options_pb2

Json = dict[str, Any]
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_FLOAT = {"type": ["number", "string"]}
_PLAIN: Mapping[int, Json] = {
    FieldDescriptor.CPPTYPE_FLOAT: _FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOAT,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
_SIGNED = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})
_UNSIGNED = frozenset({FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64})
_OF_64_BITS = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
_WELL_KNOWN: Mapping[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
}


def reference(name: str) -> Json:
    """The reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas_of(requests: Iterable[Descriptor], answers: Iterable[Descriptor], texts: Mapping[str, str]) -> Json:
    """Full name -> schema, for these messages and all messages in them. `texts`: full name -> what describes it.

    A message of requests states what the edge checks besides single fields: one member of each oneof is set. If it is
    in no answer, it states also that it has no other members. Answers get new members with new releases.
    """
    asked, told = _reachable(requests), _reachable(answers)
    return {
        name: _message(descriptor, texts, is_asked=name in asked, is_closed=name not in told)
        for name, descriptor in (asked | told).items()
    }


def _reachable(descriptors: Iterable[Descriptor]) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = list(descriptors)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in found or descriptor.full_name in _WELL_KNOWN:
            continue
        if not descriptor.GetOptions().map_entry:
            found[descriptor.full_name] = descriptor
        waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return found


def _message(descriptor: Descriptor, texts: Mapping[str, str], *, is_asked: bool, is_closed: bool) -> Json:
    properties = {field.json_name: _field(field) | _described(field, texts) for field in descriptor.fields}
    schema: Json = {"type": "object", "description": texts[descriptor.full_name], "properties": properties}
    if required := [field.json_name for field in descriptor.fields if _is_required(field)]:
        schema["required"] = required
    choices = [oneof for oneof in descriptor.oneofs if not is_synthetic(oneof)]
    if is_asked and choices:
        # Within `allOf`, because generators of clients take a `oneOf` beside `properties` for a choice of other types.
        members = [[{"required": [field.json_name]} for field in oneof.fields] for oneof in choices]
        schema["allOf"] = [{"oneOf": one} for one in members]
    if is_asked and is_closed:
        schema["additionalProperties"] = False
    return schema


def _described(field: FieldDescriptor, texts: Mapping[str, str]) -> Json:
    """The field's comment, and those of the values of its enum."""
    text = texts[field.full_name]
    if field.enum_type is not None:
        values = (
            f"- `{value.name}`: {texts[f'{field.enum_type.full_name}.{value.name}']}"
            for value in field.enum_type.values
        )
        text = "\n".join((f"{text}\n", *values))
    return {"description": text}


def _rules(field: FieldDescriptor) -> options_pb2.FieldRules:
    rules: options_pb2.FieldRules = field.GetOptions().Extensions[options_pb2.rules]
    return rules


def _is_required(field: FieldDescriptor) -> bool:
    """Whether the rules refuse a message without the field: also one whose bounds exclude the 0 that an absent number
    stands for."""
    rules = _rules(field)
    if field.containing_oneof is not None and not is_synthetic(field.containing_oneof):
        return False
    excludes_0 = rules.bounded and not rules.minimum <= 0 <= rules.maximum
    return rules.required or rules.min_items > 0 or (excludes_0 and not field.has_presence and not field.is_repeated)


def _field(field: FieldDescriptor) -> Json:
    rules = _rules(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        schema: Json = {"type": "object", "additionalProperties": _value(value, rules, is_required=False)}
        names = ("minProperties", "maxProperties")
    elif field.is_repeated:
        schema = {"type": "array", "items": _value(field, rules, is_required=False)}
        names = ("minItems", "maxItems")
    else:
        return _value(field, rules, is_required=rules.required)
    counts = (max(rules.min_items, int(rules.required)), rules.max_items)
    return schema | {name: count for name, count in zip(names, counts, strict=True) if count}


def _value(field: FieldDescriptor, rules: options_pb2.FieldRules, *, is_required: bool) -> Json:
    if field.message_type is not None:
        name = field.message_type.full_name
        return dict(_WELL_KNOWN[name]) if name in _WELL_KNOWN else reference(name)
    if field.enum_type is not None:
        return {"type": "string", "enum": [one.name for one in field.enum_type.values if one.number or not is_required]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BASE64 | ({"minLength": 1} if is_required else {})
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(rules, is_required=is_required)
    if field.cpp_type in _SIGNED | _UNSIGNED:
        return _integer(field, rules, is_required=is_required)
    return dict(_PLAIN[field.cpp_type])


def _text(rules: options_pb2.FieldRules, *, is_required: bool) -> Json:
    """The rules as `oa_wire.rules` applies them: a pattern has to match the whole of a text that isn't empty."""
    schema: Json = {"type": "string"}
    if is_required:
        schema["minLength"] = max(rules.min_length, 1)
    if rules.max_length:
        schema["maxLength"] = rules.max_length
    if rules.pattern:
        schema["pattern"] = f"^(?:{rules.pattern})$" if is_required else f"^(?:{rules.pattern})?$"
    return schema


def _integer(field: FieldDescriptor, rules: options_pb2.FieldRules, *, is_required: bool) -> Json:
    """64-bit numbers are texts in JSON as it is written, and may be numbers. Bounds apply to numbers only."""
    is_unsigned, is_long = field.cpp_type in _UNSIGNED, field.cpp_type in _OF_64_BITS
    kind = f"{'u' if is_unsigned else ''}int{64 if is_long else 32}"
    schema: Json = {"type": ["string", "integer"] if is_long else "integer", "format": kind}
    if is_long:
        schema["pattern"] = _digits(is_unsigned=is_unsigned, is_required=is_required)
    if rules.bounded:
        return schema | {"minimum": rules.minimum, "maximum": rules.maximum}
    if is_unsigned:
        schema |= {"minimum": int(is_required), "maximum": 2 ** (64 if is_long else 32) - 1}
    return schema


def _digits(*, is_unsigned: bool, is_required: bool) -> str:
    sign = "" if is_unsigned else "-?"
    return f"^{sign}[1-9][0-9]*$" if is_required else f"^(?:0|{sign}[1-9][0-9]*)$"
