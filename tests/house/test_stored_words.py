"""A word that a later release has stored keeps an earlier one, which runs beside it, from nothing that it can do."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, tracked

CLOSED = {
    "Cause": "answered as an enum of the contract",
    "Kind": "its statement names the kinds that this release knows",
    "Outcome": "answered as an enum of the contract",
    "Overlap": "says what happens at a time of a schedule",
    "PlaceChange": "says who may start runs",
    "Role": "says what a member may do",
    "RunStatus": "says what may happen in a run",
    "ShareKind": "comes from the statement itself",
    "Side": "says who answers a web request",
    "Status": "says whether a schedule starts runs",
    "WorkerStatus": "says what may happen to a worker",
}
"""Enums that stores read, and why they are closed: somebody decides by them. One release learns to read a new word, and
the next one writes it. All other words are read as text (ADR 0067)."""


def enums() -> set[str]:
    """The names of all enums of words."""
    return {
        node.name
        for file in tracked()
        if file.path.endswith(".py") and "StrEnum)" in file.text
        for node in ast.walk(ast.parse(file.text))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("StrEnum") for base in node.bases)
    }


def read_from_rows(file: SourceFile, names: set[str]) -> Iterator[str]:
    """The enums that the file makes of a column."""
    for node in ast.walk(ast.parse(file.text)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Subscript(slice=ast.Constant(value=str()))]) if (
                name in names
            ):
                yield name


def test_stores_ask_an_enum_only_for_words_that_decide() -> None:
    names = enums()
    found = {
        name
        for file in tracked()
        if file.path.startswith("services/") and not file.is_test and '(row["' in file.text
        for name in read_from_rows(file, names)
    }
    assert found == CLOSED.keys()


def test_a_word_of_a_row_is_seen() -> None:
    file = SourceFile(
        "store.py", "a = Color(row['color']) if row['color'] else None; b = Color('red'); c = Row(row['x'])"
    )
    assert list(read_from_rows(file, {"Color"})) == ["Color"]
