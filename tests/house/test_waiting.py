"""The suite can be trusted: no test assumes how fast a machine is, meddles with another, or reads private values."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, nodes_of, parsed, python_files

LEAST_GUARD_S = 30
EXPECTED = ("TimeoutError", "deadline_exceeded", "BROKEN")
"""What a statement says in which the time is meant to be up. BROKEN: how a stream ends before its time."""
RETRIED = {"tests/fuzz/doors.py:_QUIET_S"}
"""Not guards: a stream that never ends by itself is listened to for so long."""
_GUARDS = {"timeout", "wait_for", "wait", "to_thread"}


def short_guards(files: list[SourceFile]) -> list[str]:
    """Waits in tests that are given up after less than LEAST_GUARD_S, where that is not what is tested."""
    found = []
    for file in files:
        if file.is_test or file.parts[0] == "tests":
            numbers = dict(_numbers(parsed(file)))
            found += [
                f"{file.path}:{call.lineno}"
                for call in _unexpected_calls(parsed(file), file.text.split("\n"))
                for name, value in _times(call, numbers)
                if value < LEAST_GUARD_S and f"{file.path}:{name}" not in RETRIED
            ]
    return sorted(set(found))


def _numbers(tree: ast.Module) -> Iterator[tuple[str, float]]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float() as value)):
                yield name, value


def _unexpected_calls(node: ast.AST, lines: list[str]) -> Iterator[ast.Call]:
    """Calls outside of the statements that expect the time to be up."""
    for child in ast.iter_child_nodes(node):
        is_definition = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if isinstance(child, ast.stmt) and not is_definition and _expects(child, lines):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _unexpected_calls(child, lines)


def _expects(statement: ast.stmt, lines: list[str]) -> bool:
    """Whether the code itself says so. Few lines have the words, and to leave out comments takes long."""
    written = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
    return any(word in written for word in EXPECTED) and any(word in ast.unparse(statement) for word in EXPECTED)


def _times(call: ast.Call, numbers: dict[str, float]) -> Iterator[tuple[str, float]]:
    given = [keyword.value for keyword in call.keywords if keyword.arg in {"timeout", "timeout_s"}]
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in _GUARDS and call.args:
        given.append(call.args[-1])
    for value in given:
        match value:
            case ast.Constant(value=int() | float() as number):
                yield "", number
            case ast.Name(id=name) if name in numbers:
                yield name, numbers[name]


_SHARED_VIEWS = ("pg_stat_activity", "pg_locks")


def foreign_sessions(files: list[SourceFile]) -> list[str]:
    """Looks at the sessions or locks of all databases: those of other tests are there, too."""
    return [
        file.path
        for file in files
        if (file.is_test or file.parts[0] == "tests") and not file.path.endswith("house/test_waiting.py")
        for view in _SHARED_VIEWS
        for part in file.text.split(view)[1:]
        if "datname" not in part[:200]
    ]


def private_values(files: list[SourceFile]) -> list[str]:
    """Metrics read past their interface; `oa_testing.metrics.value_of` is the way."""
    nodes = ((file, node) for file in files for node in nodes_of(file))
    return [
        f"{file.path}:{node.lineno}"
        for file, node in nodes
        if isinstance(node, ast.Attribute) and node.attr == "get" and isinstance(node.value, ast.Attribute)
        if node.value.attr in {"_value", "_sum", "_count"}
    ]


def _planted(text: str, path: str = "libs/x/tests/test_x.py") -> list[SourceFile]:
    return [SourceFile(path, text)]


def test_waits_are_given_up_late_or_on_purpose() -> None:
    assert short_guards(python_files()) == []
    for short in (
        "async with asyncio.timeout(5): await x\n",
        "WAIT_S = 10\nawait asyncio.wait_for(x, WAIT_S)\n",
        "process.communicate(timeout=20)\n",
        "await asyncio.to_thread(process.wait, 10)\n",
    ):
        assert len(short_guards(_planted(short))) == 1, short
    for allowed in (
        "async with asyncio.timeout(60): await x\n",
        "with pytest.raises(TimeoutError):\n    await asyncio.wait_for(x, 0.1)\n",
        "assert (await refused(call(timeout=0.1))).reason == 'deadline_exceeded'\n",
    ):
        assert short_guards(_planted(allowed)) == [], allowed
    assert short_guards(_planted("asyncio.timeout(1)\n", "libs/x/y.py")) == [], "what is no test has its own limits"


def test_no_test_looks_at_the_sessions_of_others() -> None:
    assert foreign_sessions(python_files()) == []
    assert len(foreign_sessions(_planted("'SELECT pid FROM pg_stat_activity WHERE usename = $1'\n"))) == 1
    assert len(foreign_sessions(_planted("'SELECT count(*) FROM pg_locks WHERE NOT granted'\n"))) == 1


def test_metrics_are_read_by_their_interface() -> None:
    assert private_values(python_files()) == []
    assert len(private_values(_planted("assert DONE.labels('x')._value.get() == 1\n"))) == 1
