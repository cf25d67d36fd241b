"""What the core schema that pydantic builds of a type says about values that don't come back as they were written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import Secret, SecretStr, TypeAdapter

Node = Mapping[str, Any]
_OF_FIELDS = {"model-fields", "typed-dict", "dataclass-args", "named-tuple"}
"""Types of the schemas that have fields."""
_OF_SCHEMAS = {"choices", "steps", "definitions"}
"""Entries of a schema that hold several others. The names of all other entries with schemas end with "schema"."""


def secret_in(core: Any) -> str | None:
    """Return the path of a part that is written as stars (`.login.password`); None if there is none. A secret whose
    model says by a serializer of its own how it is written is no such part."""
    return next((path for path, node, _ in _nodes(core) if _writer_of(node) in _writers_of_stars()), None)


def renamed_in(core: Any) -> str | None:
    """Return the path of a field that is written under a name under which it is not read; None if there is none."""
    for path, node, config in _nodes(core):
        for name, field in _fields_of(node):
            if not field.get("serialization_exclude") and _written_name(name, field) not in _read_names(
                name, field, config
            ):
                return f"{path}.{name}"
    return None


def _nodes(core: Any) -> Iterator[tuple[str, Node, Node]]:
    """Each schema in a schema, with its path and the configuration of its model. What a serializer of the user's own
    writes is left out below it."""
    left: deque[tuple[str, Any, Node]] = deque([("", core, {})])
    while left:
        path, node, config = left.popleft()
        if isinstance(node, list | tuple):
            left.extend((path, each, config) for each in node)
        elif isinstance(node, Mapping):
            config = node.get("config") or config
            yield path, node, config
            if _writer_of(node) is not None:
                continue
            left.extend((f"{path}.{name}", field, config) for name, field in _fields_of(node))
            left.extend((path, each, config) for each in _inner(node))


def _inner(node: Node) -> Iterator[Any]:
    """The schemas in a schema, other than those of fields. The rest are values of the user's, such as defaults."""
    for name, entry in node.items():
        if name.endswith("schema") or name in _OF_SCHEMAS:
            yield list(entry.values()) if name == "choices" and isinstance(entry, Mapping) else entry


def _fields_of(node: Node) -> list[tuple[str, Node]]:
    """The fields of a model, a TypedDict or a dataclass, by name."""
    if node.get("type") not in _OF_FIELDS:
        return []
    fields = node["fields"]
    return list(fields.items()) if isinstance(fields, Mapping) else [(each["name"], each) for each in fields]


def _writer_of(node: Node) -> Any:
    """The function that writes the values of a schema; None if pydantic does it."""
    serialization = node.get("serialization")
    return serialization.get("function") if isinstance(serialization, Mapping) else None


def _written_name(name: str, field: Node) -> str:
    written: str = field.get("serialization_alias") or name
    return written


def _read_names(name: str, field: Node, config: Node) -> set[str]:
    alias = field.get("validation_alias")
    is_by_name = alias is None or config.get("validate_by_name") or config.get("populate_by_name")
    names = {name} if is_by_name else set()
    if alias is None or config.get("validate_by_alias") is False:
        return names
    if isinstance(alias, str):
        return names | {alias}
    paths = alias if isinstance(alias[0], list) else [alias]
    return names | {path[0] for path in paths if len(path) == 1}


@cache
def _writers_of_stars() -> frozenset[Any]:
    schemas = (TypeAdapter(secret).core_schema for secret in (SecretStr, Secret[str]))
    writers = {_writer_of(node) for schema in schemas for _, node, _ in _nodes(schema)}
    return frozenset(writers - {None})
