"""The edge as an OpenAPI 3.1 document, made at its start from the same descriptors as the edge itself.

The document describes JSON as the edge writes it. The edge also reads the other forms that proto3 JSON allows: names
as the contract spells them, whole numbers as strings, and `null` for fields that are not set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from openagents.common.v1 import options_pb2
from services.control.edge.door.methods import Method
from services.control.policy.domain import Public, Scoped

OPENAPI_PATH = "/openapi.json"
Json = dict[str, Any]
_ERROR = "Error"
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_WHOLE_64 = {"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]+$"}
_FLOAT = {"type": ["number", "string"]}
_OF_TYPE: Mapping[int, Json] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _WHOLE_64,
    FieldDescriptor.CPPTYPE_UINT64: _WHOLE_64,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOAT,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_WELL_KNOWN: Mapping[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
}


def openapi(methods: Iterable[Method]) -> Json:
    """The document, with every method and every message of a request or answer."""
    ordered = sorted(methods, key=lambda method: method.name)
    schemas: Json = {_ERROR: _error()}
    for method in ordered:
        for message in (method.request_type, method.response_type):
            descriptor: Any = message.DESCRIPTOR
            _add(descriptor, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenAgents Runtime", "version": "v1"},
        "servers": [{"url": "/"}],
        "paths": {f"/{method.name}": _path(method) for method in ordered},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


# ------------------------------------------------------------------------------------------------- methods


def _path(method: Method) -> Json:
    request = _ref(method.request_type.DESCRIPTOR.full_name)
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    path = {"post": _operation(method, "post") | {"requestBody": body}}
    if method.reads_only:
        path["get"] = _operation(method, "get") | {"parameters": _parameters(request)}
    return path


def _operation(method: Method, verb: str) -> Json:
    service, _, name = method.name.rpartition("/")
    service = service.rpartition(".")[2]
    operation: Json = {
        "operationId": f"{service}_{name}" if verb == "post" else f"{service}_{name}_get",
        "tags": [service],
        "responses": {
            "200": _answer("What it answers.", _ref(method.response_type.DESCRIPTOR.full_name)),
            "default": _answer("A refusal.", _ref(_ERROR)),
        },
        "security": [] if isinstance(method.access, Public) else [{"access_token": []}],
    }
    if isinstance(method.access, Scoped):
        operation["description"] = f"Needs the scope {method.access.scope.value}."
    return operation


def _parameters(request: Json) -> list[Json]:
    message = {"application/json": {"schema": request}}
    return [
        {"name": "message", "in": "query", "required": True, "content": message},
        {"name": "encoding", "in": "query", "required": True, "schema": {"const": "json"}},
        {"name": "connect", "in": "query", "schema": {"const": "v1"}},
    ]


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error() -> Json:
    detail = {"type": {"type": "string"}, "value": {"type": "string"}, "debug": {"type": "object"}}
    return {
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "details": {"type": "array", "items": {"type": "object", "properties": detail}},
        },
    }


# ------------------------------------------------------------------------------------------------- messages


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _add(descriptor: Descriptor, schemas: Json) -> None:
    """Add a message, and all messages that it contains."""
    if descriptor.full_name in schemas or descriptor.full_name in _WELL_KNOWN:
        return
    schema: Json = {"type": "object", "properties": {}}
    schemas[descriptor.full_name] = schema
    required = []
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[options_pb2.rules]
        schema["properties"][field.json_name] = _field(field, rules, schemas)
        if rules.required and field.containing_oneof is None:
            required.append(field.json_name)
    if required:
        schema["required"] = required


def _field(field: FieldDescriptor, rules: options_pb2.FieldRules, schemas: Json) -> Json:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        schema: Json = {"type": "object", "additionalProperties": _value(value, rules, schemas)}
        names = ("minProperties", "maxProperties")
    elif field.is_repeated:
        schema = {"type": "array", "items": _value(field, rules, schemas)}
        names = ("minItems", "maxItems")
    else:
        return _value(field, rules, schemas)
    found = zip(names, (rules.min_items, rules.max_items), strict=True)
    return schema | {name: count for name, count in found if count}


def _value(field: FieldDescriptor, rules: options_pb2.FieldRules, schemas: Json) -> Json:
    if field.message_type is not None:
        _add(field.message_type, schemas)
        name = field.message_type.full_name
        return dict(_WELL_KNOWN[name]) if name in _WELL_KNOWN else _ref(name)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return dict(_BASE64)
    schema = dict(_OF_TYPE[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return schema | _text_rules(rules)
    return schema | ({"minimum": rules.minimum, "maximum": rules.maximum} if rules.bounded else {})


def _text_rules(rules: options_pb2.FieldRules) -> Json:
    """The rules as `oa_wire.rules` applies them: a pattern has to match the whole of a text that isn't empty."""
    limits: Json = {"maxLength": rules.max_length} if rules.max_length else {}
    if rules.pattern:
        limits["pattern"] = f"^(?:{rules.pattern})$" if rules.required else f"^(?:{rules.pattern})?$"
    return limits
