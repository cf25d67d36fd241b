"""The edge as an OpenAPI 3.1 document, made from the same descriptors as the edge itself, and from the comments of the
contracts.

The document describes JSON as the edge writes it. The edge also reads the other forms that proto3 JSON allows: names
as the contract spells them, whole numbers as strings, enum values as numbers, and `null` for fields that are not set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.rpc import code_pb2

from oa_wire.connect import connect_code
from services.control.edge.door.methods import Method
from services.control.edge.door.openapi.schemas import Json, reference, schemas_of
from services.control.policy.domain import Access, AnyPrincipal, Public, Scoped, SessionOnly

OPENAPI_PATH = "/openapi.json"
_ERROR = "Error"
_FRESH = " A person with a session must have signed in recently."


def openapi(methods: Iterable[Method], texts: Mapping[str, str]) -> Json:
    """The document, with every method and every message of a request or answer. `texts`: the contracts' comments."""
    ordered = sorted(methods, key=lambda method: method.name)
    requests: list[Any] = [method.request_type.DESCRIPTOR for method in ordered]
    answers: list[Any] = [method.response_type.DESCRIPTOR for method in ordered]
    schemas = {_ERROR: _error()} | schemas_of(requests, answers, texts)
    services = sorted({method.name.rpartition("/")[0] for method in ordered})
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenAgents Runtime", "version": "v1"},
        "servers": [{"url": "/"}],
        "tags": [{"name": _tag(service), "description": texts[service]} for service in services],
        "paths": {f"/{method.name}": _path(method, texts) for method in ordered},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


# ------------------------------------------------------------------------------------------------- methods


def _tag(service: str) -> str:
    return service.rpartition(".")[2]


def _path(method: Method, texts: Mapping[str, str]) -> Json:
    request = reference(method.request_type.DESCRIPTOR.full_name)
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    path = {"post": _operation(method, "post", texts) | {"requestBody": body}}
    if method.reads_only:
        path["get"] = _operation(method, "get", texts) | {"parameters": _parameters(request)}
    return path


def _operation(method: Method, verb: str, texts: Mapping[str, str]) -> Json:
    full_service, _, name = method.name.rpartition("/")
    service = _tag(full_service)
    who = _who(method.access)
    told = texts[f"{full_service}.{name}"]
    return {
        "operationId": f"{service}_{name}" if verb == "post" else f"{service}_{name}_get",
        "tags": [service],
        "description": f"{told}\n\n{who}" if who else told,
        "responses": {
            "200": _answer("What it answers.", reference(method.response_type.DESCRIPTOR.full_name)),
            "default": _answer("A refusal.", reference(_ERROR)),
        },
        "security": [] if isinstance(method.access, Public) else [{"access_token": []}],
    }


def _who(access: Access) -> str:
    """Who may call, in words."""
    match access:
        case Scoped(scope, fresh):
            return f"Needs the scope {scope.value}.{_FRESH if fresh else ''}"
        case SessionOnly(fresh):
            return f"Needs the token of a person's session, not one of an API key.{_FRESH if fresh else ''}"
        case AnyPrincipal():
            return "Open to every caller that has signed in."
        case Public():
            return ""


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
    """Connect's error. Codes are a closed set; reasons grow with the catalogue."""
    info = {
        "description": "Of a google.rpc.ErrorInfo: the reason of the catalogue (docs/errors.md), and metadata, where "
        "`field` is the field to blame. Of a google.rpc.RetryInfo: how long to wait.",
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "domain": {"type": "string"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "retryDelay": {"type": "string"},
        },
    }
    detail = {"type": {"type": "string"}, "value": {"type": "string"}, "debug": info}
    codes = [connect_code(name) for name, number in code_pb2.Code.items() if number]
    return {
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "string", "enum": codes},
            "message": {"type": "string"},
            "details": {
                "type": "array",
                "items": {"type": "object", "required": ["type", "value"], "properties": detail},
            },
        },
    }
