"""A door refuses what the schema refuses, as far as it looks, and never what the schema takes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_wire.json_schema import MAX_DEPTH, MAX_PATH_CHARS, MAX_STEPS, JsonSchema
from oa_wire.strict_text import MAX_JSON_DEPTH

NAMES = st.sampled_from(["a", "b", "c"])
TYPES = st.sampled_from(["null", "boolean", "string", "number", "integer", "array", "object"])
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0, -0.0]) | st.text("xé🌍", max_size=3)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas of all keywords that are looked at."""
    some, few = st.lists(inner, min_size=1, max_size=2), st.integers(0, 3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "allOf": some,
        "anyOf": some,
        "properties": st.dictionaries(NAMES, inner, max_size=2),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": some,
        "$ref": st.just("#/$defs/a~1b"),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), few),
        **{name: st.integers(-1, 2) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")},
    }
    return st.booleans() | st.fixed_dictionaries({}, optional=keywords)


SCHEMAS = st.recursive(st.booleans(), _schemas, max_leaves=5)
# What is passed over, beside what is looked at.
PASSED_OVER = st.fixed_dictionaries(
    {},
    optional={
        "not": SCHEMAS,
        "oneOf": st.lists(SCHEMAS, min_size=1, max_size=2),
        "if": SCHEMAS,
        "then": SCHEMAS,
        "pattern": st.just("^x"),
        "patternProperties": st.fixed_dictionaries({"^b": SCHEMAS}),
        "uniqueItems": st.just(True),
        "multipleOf": st.just(2),
        "contains": SCHEMAS,
        "unevaluatedProperties": st.booleans(),
    },
)


def _fault(schema: Any, value: Any) -> Any:
    return JsonSchema(json.dumps(schema)).fault(json.loads(json.dumps(value)))


def _is_valid(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@given(SCHEMAS, _schemas(st.booleans()), VALUES)
def test_what_is_looked_at_is_decided_as_the_peer_decides(schema: Any, shared: Any, value: Any) -> None:
    if isinstance(shared, dict):
        shared.pop("$ref", None)
    whole = {"$defs": {"a/b": shared}, "allOf": [schema]}
    assert (_fault(whole, value) is None) == _is_valid(whole, value)


@given(SCHEMAS, PASSED_OVER, VALUES)
def test_what_the_schema_takes_is_never_refused(schema: Any, more: Any, value: Any) -> None:
    whole = {"$defs": {"a/b": True}, **(schema if isinstance(schema, dict) else {}), **more}
    if _is_valid(whole, value):
        assert _fault(whole, value) is None


@given(VALUES, VALUES)
def test_a_schema_of_any_shape_is_read_or_refused_and_never_fails(schema: Any, value: Any) -> None:
    for made in (schema, {"properties": schema, "required": schema, "items": schema, "type": schema, "$ref": schema}):
        try:
            JsonSchema(json.dumps(made)).fault(value)
        except Refusal as refusal:
            assert refusal.reason == "invalid_value"  # noqa: PT017 - both are right


@pytest.mark.parametrize(
    ("schema", "value", "path", "must"),
    [
        ({"type": "object"}, [], "$", "must be of type object"),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 1]}, "$.a[1]", "must be of type string"),
        ({"required": ["question"]}, {}, "$.question", "must be set"),
        ({"properties": {"é": {"type": "null"}}}, {"é": 1}, r"$['\xe9']", "must be of type null"),
        ({"anyOf": [{"type": "null"}, {"required": ["a"]}]}, {}, "$.a", "must be set"),
        ({"maxLength": 2}, "secret", "$", "must have no more characters than 2"),
    ],
)
def test_a_fault_says_where_and_what(schema: Any, value: Any, path: str, must: str) -> None:
    assert _fault(schema, value) == (path, must)


def test_nothing_of_the_value_is_said_back() -> None:
    schema = {
        "additionalProperties": {"properties": {"a": {"enum": ["x"]}}, "additionalProperties": False},
        "maxProperties": 9,
    }
    for value in ({"secret": {"a": "secret"}}, {"secret": {"secret": 1}}):
        assert "secret" not in "".join(_fault(schema, value))


def test_a_path_has_a_limit() -> None:
    schema: Any = {"type": "null"}
    value: Any = 1
    for _ in range(MAX_JSON_DEPTH // 2 - 1):
        schema, value = {"properties": {"x" * 60: schema}}, {"x" * 60: value}
    assert MAX_PATH_CHARS - 70 < len(_fault(schema, value).path) <= MAX_PATH_CHARS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '{"type":"object","type":"array"}',
        '{"$ref":"https://example.org/schema"}',
        '{"properties":{"a":{"$ref":"file:///etc/passwd"}}}',
        '{"properties":{"a":{"$id":"b"}}}',
        '{"$schema":"http://json-schema.org/draft-07/schema#"}',
    ],
)
def test_what_is_no_schema_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        JsonSchema(text)
    assert refused.value.reason == "invalid_value"


def test_a_schema_that_never_ends_lets_pass() -> None:
    assert _fault({"$ref": "#"}, 1) is None
    assert _fault({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1) is None
    nested: Any = {"type": "null"}
    for _ in range(49):
        nested = {"allOf": [nested]}
    assert _fault(nested, 1) is not None
    assert MAX_DEPTH > 2 * MAX_JSON_DEPTH


def test_a_value_costs_no_more_than_its_steps() -> None:
    schema = {"items": {"type": "string"}}
    good = ["x"] * (MAX_STEPS // 2 - 10)
    assert _fault(schema, [*good, 1]) is not None
    assert _fault(schema, [*good, *["x"] * 20, 1]) is None
