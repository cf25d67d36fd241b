"""A door refuses what the schema refuses, as far as it looks, and never what the schema takes."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_wire.json_schema import MAX_DEPTH, MAX_PATH_CHARS, MAX_STEPS, JsonSchema
from oa_wire.strict.text import MAX_JSON_DEPTH

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


def _often(schema: Any, times: int = 10) -> Any:
    """A schema that visits another one as often as its steps allow, at most `times` ** 3 times: each visit fails."""
    return {
        "anyOf": [{"$ref": "#/b"}] * times,
        "b": {"anyOf": [{"$ref": "#/c"}] * times},
        "c": {"anyOf": [{"$ref": "#/d"}] * times},
        "d": {"allOf": [schema, False]},
    }


MANY = {f"{number:x}": 0 for number in range(5_000)}
# What a visit does at once, in code that no line of ours shows: it must use up steps, so that a value passes.
AT_ONCE: dict[str, tuple[Any, Any]] = {
    "a reference of many steps": ({"$ref": "#" + "/" * 5_000}, 1),
    "a long reference": ({"$ref": "#/" + "a" * 50_000}, 1),
    "an object to compare with": ({"const": MANY}, dict.fromkeys(MANY, 1)),
    "many types": ({"type": ["null"] * 5_000 + ["none"]}, 1),
}
# What a visit did line by line: without steps, it took the more lines the larger it was.
BY_LINES: dict[str, tuple[Any, Any]] = {
    "items behind many others": ({"items": True, "const": 1, "prefixItems": [True] * 5_000}, [0] * 5_000),
    "many keywords": (MANY, 1),
    "many names": ({"required": ["a"] * 5_000, "const": 1}, {"a": 1}),
}


@pytest.mark.parametrize("what", AT_ONCE)
def test_a_schema_that_is_visited_often_is_counted_by_its_size(what: str) -> None:
    schema, value = AT_ONCE[what]
    assert _fault({"allOf": [schema, False]}, value) is not None, "one visit has steps enough"
    assert _fault(_often(schema), value) is None


@pytest.mark.parametrize("what", [*BY_LINES, *AT_ONCE])
def test_no_schema_takes_more_work_than_its_steps(what: str) -> None:
    schema, value = {**BY_LINES, **AT_ONCE}[what]
    read = JsonSchema(json.dumps(_often(schema)))
    lines, allowed = 0, 60 * MAX_STEPS

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        assert lines < allowed, "it works on beyond its steps"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        read.fault(value)
    finally:
        sys.settrace(before)


def test_a_number_that_is_long_to_write_is_not_shown() -> None:
    assert _fault({"minimum": 2**64}, 1) == ("$", f"must be at least {2**64}")
    assert _fault({"minimum": 10**4_000}, 1) == ("$", "must be at least the number that the schema names")


async def test_a_schema_may_be_as_deep_as_the_stack_allows() -> None:
    deep: Any = {"$ref": "#"}
    for _ in range(48):
        deep = {"anyOf": [deep]}

    def from_depth(frames: int) -> Any:
        return from_depth(frames - 1) if frames else _fault(deep, 1)

    assert from_depth(sys.getrecursionlimit() - 200) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"$ref": "other"}},
        {"properties": {"a": {"enum": [{"$id": "other"}]}, "default": {"default": {"$ref": "other"}}}},
        {"$defs": {"examples": {"examples": [{"$id": "other"}]}}},
    ],
    ids=json.dumps,
)
def test_a_value_in_a_schema_refers_to_nothing(schema: Any) -> None:
    JsonSchema(json.dumps(schema))


@pytest.mark.parametrize("keyword", ["const", "default", "enum", "examples"])
@pytest.mark.parametrize("names", ["properties", "$defs", "patternProperties", "dependentSchemas"])
def test_a_member_may_be_named_like_a_keyword_and_is_a_schema_all_the_same(names: str, keyword: str) -> None:
    with pytest.raises(Refusal, match="another document"):
        JsonSchema(json.dumps({names: {keyword: {"$ref": "other"}}}))


def test_a_reference_with_an_escape_of_urls_is_not_followed() -> None:
    schema = {"$defs": {"a%25b": {"type": "string"}, "a%b": {"type": "integer"}}, "$ref": "#/$defs/a%25b"}
    assert _is_valid(schema, 1)
    assert _fault(schema, 1) is None


def test_a_path_through_arrays_ends_early_too() -> None:
    schema: Any = {"type": "string"}
    value: Any = 1
    for _ in range(60):
        schema, value = {"items": schema}, [value]
    for _ in range(8):
        schema, value = {"properties": {"x" * 60: schema}}, {"x" * 60: value}
    fault = _fault(schema, value)
    assert fault.must == "must be of type string"
    assert len(fault.path) <= MAX_PATH_CHARS
