"""Columns have names: a statement that gets another one must not shift what is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import runtime

_RUNTIME = Path(runtime.__file__).parent
_STORES = sorted([*_RUNTIME.glob("*/store.py"), *_RUNTIME.glob("*/store/*.py")])


def read_by_number(source: str) -> Iterator[int]:
    """Lines that take a column of a row by its number, or a row apart."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int())) if name == "row":
                yield node.lineno
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id="rows")), slice=ast.Constant(value=int())):
                yield node.lineno
            case ast.Starred(value=ast.Name(id="row")):
                yield node.lineno
            case ast.Assign(
                targets=[ast.Tuple()], value=ast.Await(value=ast.Call(func=ast.Attribute(attr="fetchrow")))
            ):
                yield node.lineno
            case ast.For(target=ast.Tuple(), iter=ast.Name(id="rows")):
                yield node.lineno
            case ast.comprehension(target=ast.Tuple(), iter=ast.Name(id="rows")):
                yield node.target.lineno


def test_every_feature_that_stores_is_read() -> None:
    assert {path.relative_to(_RUNTIME).parts[0] for path in _STORES} >= {"archive", "authority", "log", "workers"}


@pytest.mark.parametrize("module", _STORES, ids=lambda path: str(path.relative_to(_RUNTIME)))
def test_columns_are_read_by_name(module: Path) -> None:
    assert list(read_by_number(module.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "planted",
    [
        "x = row[0]",
        "x = rows[0][1]",
        "f(*row)",
        "async def f(c):\n    a, b = await c.fetchrow('')",
        "for a, b in rows: pass",
        "x = {a: b for a, b in rows}",
    ],
)
def test_what_reads_by_number_is_found(planted: str) -> None:
    assert list(read_by_number(planted))
