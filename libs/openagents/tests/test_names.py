"""What the package offers is what it says, to those who run it and to those who check types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import openagents

SOURCE = ast.parse(Path(openagents.__file__).read_text("utf-8"))


def _for_type_checkers() -> set[tuple[str, str]]:
    """Name -> where it comes from, as a type checker reads it."""
    block = next(node for node in SOURCE.body if isinstance(node, ast.If))
    return {
        (alias.asname or alias.name, f"{node.module}.{alias.name}")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_names_are_the_same_for_type_checkers_and_at_run_time() -> None:
    assert {(name, home.replace(":", ".")) for name, home in openagents.HOMES.items()} == _for_type_checkers()
    assert sorted(openagents.HOMES) == openagents.__all__


@pytest.mark.parametrize("name", sorted(openagents.HOMES))
def test_every_name_is_there(name: str) -> None:
    assert name in dir(openagents)
    assert getattr(openagents, name) is not None


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="Clint"):
        _ = openagents.Clint  # type: ignore[attr-defined]
