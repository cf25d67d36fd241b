"""Shapes of types are made once, where a type can be told from another; they read numbers as JSON Schema does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import pytest
from pydantic import BaseModel

from oa_base.refusal import Refusal
from oa_wire import shapes
from oa_wire.json_schema import JsonSchema
from oa_wire.shapes import Misfit, Shape, json_text, shape_of


def test_a_shape_is_made_once_for_a_type_and_a_use() -> None:
    assert shape_of(list[int], "validation") is shape_of(list[int], "validation")
    assert shape_of(list[str], "validation").read('["1"]') == ["1"]
    assert shape_of(int, "validation") is not shape_of(int, "serialization")


def test_types_that_can_not_be_hashed_have_one_too() -> None:
    stated = cast("type[Any]", Annotated[int, {"unit": "s"}])
    assert shape_of(stated, "validation").read("1") == 1


def test_so_many_are_remembered() -> None:
    for number in range(shapes.MAX_SHAPES + 1):
        shape_of(cast("type[Any]", Literal[number]), "validation")
    assert shapes._remembered.cache_info().currsize == shapes.MAX_SHAPES


@dataclass
class Ordered:
    """With numbers of several kinds, and texts that look like numbers."""

    count: int
    price: float = 0.5
    note: str = ""


@pytest.mark.parametrize(
    ("stated", "text", "value"),
    [
        (int, "1.0", 1),
        (int, "-3e2", -300),
        (int, "-0.0", 0),
        (int, "1E+2", 100),
        (int, "9007199254740993.0", 2**53 + 1),
        (int, "-12345678901234567890123.40e2", -1234567890123456789012340),
        (list[int], "[1,2.0,3e0]", [1, 2, 3]),
        (dict[str, int], '{"1.0":1.0}', {"1.0": 1}),
        (int | None, "1.0", 1),
        (int | str, "1.0", 1),
        (int | float, "1.0", 1.0),
        (float, "1", 1.0),
        (Ordered, r'{"count":2.0,"price":3.0,"note":"a \" 4.0 \\"}', Ordered(2, 3.0, 'a " 4.0 \\')),
        (list[Ordered], '[{"count":2.0,"price":2.5}]', [Ordered(2, 2.5)]),
    ],
)
def test_a_whole_number_is_an_integer_however_it_is_written(stated: Any, text: str, value: Any) -> None:
    read = Shape(stated, "validation").read(text)
    assert (read, type(read)) == (value, type(value))
    assert JsonSchema(Shape(stated, "validation").schema_json).fault(json.loads(text)) is None, "a door takes it too"


@pytest.mark.parametrize(
    ("stated", "text", "where"),
    [
        (int, "1.5", "$: "),
        (int, '"1.0"', "$: "),
        (int, "1e400", "$: "),
        (int, "1e-400", "$: "),
        (int, "1e-99999999999999999999", "$: "),
        (int, "true", "$: "),
        (str, "1.0", "$: "),
        (bool, "1.0", "$: "),
        (list[int], "[1.0,2.5]", "$[1]: "),
        (int, "1.0 1.0", "$: Invalid JSON"),
        (int, '1.0, "' + '\\"' * 100_000, "$: Invalid JSON"),
    ],
)
def test_what_is_no_integer_stays_one_of_another_type(stated: Any, text: str, where: str) -> None:
    with pytest.raises(Misfit) as misfit:
        Shape(stated, "validation").read(text)
    assert str(misfit.value).startswith(where)


class _Model(BaseModel):
    blob: bytes = b""
    many: tuple[float, ...] = ()


@dataclass
class _Record:
    inside: object = None


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (object(), "$", "object"),
        ({"a": [1, {"b": float("nan")}]}, "$.a[1].b", "float"),
        (_Model(blob=b"\xff"), "$.blob", "bytes"),
        (_Record(_Model(many=(1.0, float("inf")))), "$.inside.many[1]", "float"),
        ({"a secret key": "\ud800"}, "$.*", "str"),
        ({"\ud800": 1}, "$", "dict"),
        ((1, print), "$[1]", "builtin_function_or_method"),
    ],
)
def test_what_has_no_form_in_json_is_named_by_its_path(value: object, path: str, kind: str) -> None:
    with pytest.raises(Refusal) as refused:
        json_text(value, "input")
    assert (refused.value.field, refused.value.metadata) == ("input", {"path": path})
    assert refused.value.message.startswith(f"input{path[1:]} must have a form in JSON, and this {kind} has none")


def test_what_is_nested_without_end_is_refused_too() -> None:
    endless: list[object] = []
    endless.append(endless)
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(Refusal, match="must have a form in JSON"):
            json_text(value, "input")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({1: "a", "1": "b"}, "$"),
        ({"a": [{None: 1, "None": 2}]}, "$.a[0]"),
        (_Record({True: 1, "true": 2}), "$.inside"),
    ],
    ids=repr,
)
def test_a_mapping_that_would_lose_a_member_is_refused(value: object, path: str) -> None:
    assert json_text({1: "a", "2": "b", None: "c"}, "input") == '{"1":"a","2":"b","None":"c"}'
    with pytest.raises(Refusal) as refused:
        json_text(value, "input")
    assert (refused.value.field, refused.value.metadata) == ("input", {"path": path})
    for mode in ("validation", "serialization"):
        with pytest.raises(Misfit) as misfit:
            Shape(object, mode).write(value)
        assert str(misfit.value).startswith(f"{path} has two keys that are the same text in JSON")
