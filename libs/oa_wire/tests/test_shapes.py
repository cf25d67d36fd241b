"""Shapes of types are made once, where a type can be told from another."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from oa_wire import shapes
from oa_wire.shapes import shape_of


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
