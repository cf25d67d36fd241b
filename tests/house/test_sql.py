"""SQL of services and platform: each statement is a constant that says what it is for; columns are read by name."""

import ast
import re
from collections.abc import Iterator

from tests.house.files import SourceFile, parsed, python_files

ROOMS = ("services/", "libs/oa_platform/")
_METHODS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor"}
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|SET|CREATE|LOCK|LISTEN)\b")


def odd_sql(files: list[SourceFile]) -> list[str]:
    """Statements without a purpose, statements that are written where they are run, and columns read by number."""
    return [
        f"{file.path}:{line} {what}"
        for file in files
        if file.path.startswith(ROOMS) and not file.is_test
        for line, what in (*_unexplained(parsed(file)), *_inside(parsed(file)))
    ]


def _unexplained(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_sql(value):
                if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
                    yield node.lineno, f"{name} has no purpose"


def _inside(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str()) | ast.JoinedStr(), *_]) if (
                method in _METHODS
            ):
                yield node.lineno, "a statement without a name"
            case ast.Subscript(value=ast.Name(id="row"), slice=ast.Constant(value=int())):
                yield node.lineno, "a column by its number"


def _is_sql(value: ast.expr) -> bool:
    """Whether a string begins as a statement does, or with a part of one that has a name (`_SELECT`)."""
    match value:
        case ast.Constant(value=str(text)):
            return _SQL.match(text) is not None
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id=name)), *_]):
            return name.startswith("_SELECT")
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return _SQL.match(text) is not None
    return False


def test_sql_has_names_and_purposes_and_columns_have_names() -> None:
    assert odd_sql(python_files()) == []
    for bad in (
        'GET = "SELECT 1"',
        '_GET = "SELECT 1"',
        '# Gets.\n_GET = "SELECT 1"',
        """WAIT = f"SET lock_timeout = '{TIMEOUT_S}s'\"""",
        'GET = f"SELECT {_COLUMNS} FROM x"\nPUT = "UPDATE x"\n"""Puts."""',
        'GET = f"{_SELECT} WHERE x"',
        "await connection.fetchrow('SELECT 1')",
        "await connection.execute(f'DELETE FROM {x}')",
        "name = row[0]",
    ):
        for path in ("services/control/orgs/store.py", "services/runtime/log/store/sql.py", "libs/oa_platform/x.py"):
            assert len(odd_sql([SourceFile(path, bad)])) == 1, bad


def test_named_sql_and_tests_are_left_alone() -> None:
    good = 'GET = "SELECT 1"\n"""Gets."""\nawait connection.fetchrow(GET)\nname = row["name"]'
    assert odd_sql([SourceFile("services/control/orgs/store.py", good)]) == []
    assert odd_sql([SourceFile("services/control/orgs/tests/x.py", 'GET = "SELECT 1"')]) == []
