"""The part of JSON Schema that a door can check a value against: it costs little and refuses nothing that is valid.

A schema comes from a worker and a value from a caller, and neither may keep a service busy. So only keywords that can
be checked in one pass are checked (`_CHECKS`); a library that has all keywords also has patterns that never end, remote
references and comparisons of everything with everything. The receiver of the value checks the whole schema.

Each checked keyword only narrows what is valid. So a keyword that is skipped, a keyword that has the wrong shape, and
everything beyond MAX_STEPS or MAX_DEPTH let a value pass. For the same reason `oneOf` is treated as `anyOf`, and `not`
and `if` are skipped.

A schema is visited as often as it is referred to. So whatever a visit does in proportion to the size of something is
counted as that many steps, and before it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from oa_base.refusal import Refusal
from oa_wire.strict.text import Unstrict, read_json

MAX_STEPS = 20_000
"""Maximum number of comparisons for one value; the rest of it is not checked."""
MAX_DEPTH = 300
"""Maximum depth of schemas within schemas, references included; deeper ones are not checked."""
CHARS_OF_STEP = 100
"""How much of a reference counts as one step."""
MAX_NAME_CHARS = 64
"""Maximum number of characters of a member's name in a path."""
MAX_PATH_CHARS = 500
"""Maximum number of characters of a path; a longer one ends early."""
MAX_BOUND_BITS = 128
"""Maximum size of a whole number that a fault shows: it takes long to write a very large one."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Fault(NamedTuple):
    """Where a value does not match its schema, for example "$.items[2].price", and what it must be there."""

    path: str
    must: str


class _Spent(Exception):
    """The value has used up its comparisons."""


class JsonSchema:
    """A schema that values are checked against."""

    def __init__(self, text: str) -> None:
        """Raises Refusal `invalid_value` for a text that is not a schema, or one that refers to another document."""
        try:
            self._root = read_json(text)
        except Unstrict as error:
            raise _no_schema(f"the schema must be JSON with one meaning: {error}") from None
        except ValueError:
            raise _no_schema("the schema must be one JSON text") from None
        if not isinstance(self._root, dict | bool):
            raise _no_schema("a schema must be a JSON object or a boolean")
        if isinstance(self._root, dict) and self._root.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise _no_schema("the schema must be of the dialect 2020-12; leave out $schema")
        _check_references(self._root)

    def fault(self, value: Any) -> Fault | None:
        """Return the first fault of a value, as `read_json` reads it; None if the value may be valid."""
        try:
            return _Check(self._root).fault(self._root, value, "$")
        except (_Spent, RecursionError):  # how deep it may go depends on the caller's stack too
            return None


def _no_schema(message: str) -> Refusal:
    return Refusal("invalid_value", message)


_VALUES = frozenset({"const", "default", "enum", "examples"})
"""Keywords that hold values: whatever is in them is no schema."""
_NAMED = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas"})
"""Keywords that hold schemas by name. A name may be that of a keyword."""


def _check_references(root: Any) -> None:
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise _no_schema("the schema refers to another document; put what it needs under $defs")
            if part is not root and isinstance(part.get("$id"), str):
                raise _no_schema("the schema holds a schema with an $id; leave the $id out")
            for keyword, inner in part.items():
                if keyword in _NAMED and isinstance(inner, dict):
                    waiting.extend(inner.values())
                elif keyword not in _VALUES:
                    waiting.append(inner)
        elif isinstance(part, list):
            waiting.extend(part)


@dataclass
class _Check:
    """One value against one schema."""

    root: Any
    steps: int = 0
    depth: int = 0

    def spend(self, steps: int = 1) -> None:
        """Count `steps` comparisons. Raises _Spent when none are left."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise _Spent

    def fault(self, schema: Any, value: Any, path: str) -> Fault | None:
        """Return the first fault of `value`, which is at `path`."""
        self.spend()
        if schema is False:
            return Fault(path, "must be left out")
        if not isinstance(schema, dict) or self.depth == MAX_DEPTH:
            return None
        self.depth += 1
        try:
            # A schema with very many other keywords costs no more than all that are checked.
            for keyword in schema if len(schema) <= len(_CHECKS) else _CHECKS:
                check = _CHECKS.get(keyword) if keyword in schema else None
                fault = check(self, schema, value, path) if check else None
                if fault:
                    return fault
            return None
        finally:
            self.depth -= 1

    def same(self, left: Any, right: Any) -> bool:
        """Whether two values are equal in JSON: 1 equals 1.0, and true doesn't equal 1."""
        self.spend()
        if isinstance(left, bool) or isinstance(right, bool):
            return left is right
        if isinstance(left, dict) and isinstance(right, dict):
            if len(left) != len(right):
                return False
            self.spend(len(left))
            return left.keys() == right.keys() and all(self.same(left[name], right[name]) for name in left)
        if isinstance(left, list) and isinstance(right, list):
            return len(left) == len(right) and all(map(self.same, left, right))
        return bool(left == right)


# ------------------------------------------------------------------------------------------------- any value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "null": lambda value: value is None,
        "boolean": lambda value: isinstance(value, bool),
        "string": lambda value: isinstance(value, str),
        "number": _is_number,
        "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
        "array": lambda value: isinstance(value, list),
        "object": lambda value: isinstance(value, dict),
    }
)


def _type(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    stated = schema["type"]
    names = stated if isinstance(stated, list) else [stated]
    check.spend(len(names))
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        return None
    return None if any(_TYPES[name](value) for name in names) else Fault(path, f"must be of type {' or '.join(names)}")


def _enum(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    values = schema["enum"]
    if not isinstance(values, list) or any(check.same(one, value) for one in values):
        return None
    return Fault(path, "must be one of the values that the schema names")


def _const(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    return None if check.same(schema["const"], value) else Fault(path, "must be the value that the schema names")


def _ref(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    target = check.root
    reference = schema["$ref"]
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")) or "%" in reference:
        return None
    check.spend(reference.count("/") + len(reference) // CHARS_OF_STEP)
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or name not in target:
            return None
        target = target[name]
    return check.fault(target, value, path)


def _all_of(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    parts = schema["allOf"]
    if not isinstance(parts, list):
        return None
    for part in parts:
        if fault := check.fault(part, value, path):
            return fault
    return None


def _one_of(keyword: str) -> Callable[[_Check, Any, Any, str], Fault | None]:
    def any_of(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
        choices = schema[keyword]
        if not isinstance(choices, list) or not choices:
            return None
        faults = []
        for choice in choices:
            fault = check.fault(choice, value, path)
            if fault is None:
                return None
            faults.append(fault)
        # The choice whose fault is deepest is most likely the intended one.
        deepest = max(faults, key=lambda fault: len(fault.path))
        return deepest if len(deepest.path) > len(path) else Fault(path, "must be one of what the schema offers")

    return any_of


# ------------------------------------------------------------------------------------------------- objects, arrays


def _member(path: str, name: str) -> str:
    plain = len(name) <= MAX_NAME_CHARS and name.isidentifier() and name.isascii()
    return _longer(path, f".{name}" if plain else f"[{name[:MAX_NAME_CHARS]!a}]")


def _element(path: str, index: int) -> str:
    return _longer(path, f"[{index}]")


def _longer(path: str, step: str) -> str:
    return f"{path}{step}" if len(path) + len(step) <= MAX_PATH_CHARS else path


def _properties(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    known = schema["properties"]
    if not isinstance(known, dict) or not isinstance(value, dict):
        return None
    for name, member in value.items():
        check.spend()
        if name in known and (fault := check.fault(known[name], member, _member(path, name))):
            return fault
    return None


def _required(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    names = schema["required"]
    if not isinstance(names, list) or not isinstance(value, dict):
        return None
    check.spend(len(names))
    for name in names:
        if isinstance(name, str) and name not in value:
            return Fault(_member(path, name), "must be set")
    return None


def _additional(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    known = schema.get("properties", {})
    if "patternProperties" in schema or not isinstance(known, dict) or not isinstance(value, dict):
        return None
    for name, member in value.items():
        check.spend()
        # A name that the schema doesn't have is the caller's own and is not echoed.
        if name not in known and check.fault(schema["additionalProperties"], member, path):
            return Fault(path, "must hold no other members than those that the schema has, of their types")
    return None


def _prefix(schema: Any) -> int:
    prefix = schema.get("prefixItems", [])
    return len(prefix) if isinstance(prefix, list) else 0


def _items(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    if not isinstance(value, list):
        return None
    for index in range(_prefix(schema), len(value)):
        if fault := check.fault(schema["items"], value[index], _element(path, index)):
            return fault
    return None


def _prefix_items(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
    parts = schema["prefixItems"]
    if not isinstance(parts, list) or not isinstance(value, list):
        return None
    for index, (part, item) in enumerate(zip(parts, value, strict=False)):
        if fault := check.fault(part, item, _element(path, index)):
            return fault
    return None


# ------------------------------------------------------------------------------------------------- bounds


def _size(value: Any) -> Any:
    return len(value)


def _itself(value: Any) -> Any:
    return value


def _bound(
    keyword: str,
    applies: Callable[[Any], bool],
    measure: Callable[[Any], Any],
    holds: Callable[[Any, Any], bool],
    must: str,
) -> Callable[[_Check, Any, Any, str], Fault | None]:
    def check_bound(check: _Check, schema: Any, value: Any, path: str) -> Fault | None:
        bound = schema[keyword]
        if not _is_number(bound) or not applies(value) or holds(measure(value), bound):
            return None
        return Fault(path, f"{must} {_shown(bound)}")

    return check_bound


def _shown(bound: float) -> str:
    is_large = isinstance(bound, int) and bound.bit_length() > MAX_BOUND_BITS
    return "the number that the schema names" if is_large else str(bound)


def _bounds() -> dict[str, Callable[[_Check, Any, Any, str], Fault | None]]:
    found = {}
    for applies, maximum, minimum, what in (
        (_TYPES["string"], "maxLength", "minLength", "characters"),
        (_TYPES["array"], "maxItems", "minItems", "elements"),
        (_TYPES["object"], "maxProperties", "minProperties", "members"),
    ):
        max_words, min_words = f"must have no more {what} than", f"must have no fewer {what} than"
        found[maximum] = _bound(maximum, applies, _size, lambda size, bound: size <= bound, max_words)
        found[minimum] = _bound(minimum, applies, _size, lambda size, bound: size >= bound, min_words)
    for keyword, holds, must in (
        ("maximum", lambda value, bound: value <= bound, "must be at most"),
        ("minimum", lambda value, bound: value >= bound, "must be at least"),
        ("exclusiveMaximum", lambda value, bound: value < bound, "must be below"),
        ("exclusiveMinimum", lambda value, bound: value > bound, "must be above"),
    ):
        found[keyword] = _bound(keyword, _is_number, _itself, holds, must)
    return found


_CHECKS: Mapping[str, Callable[[_Check, Any, Any, str], Fault | None]] = MappingProxyType(
    {
        "$ref": _ref,
        "type": _type,
        "enum": _enum,
        "const": _const,
        "allOf": _all_of,
        "anyOf": _one_of("anyOf"),
        "oneOf": _one_of("oneOf"),
        "properties": _properties,
        "required": _required,
        "additionalProperties": _additional,
        "items": _items,
        "prefixItems": _prefix_items,
        **_bounds(),
    }
)
