"""How our Python looks: sizes, words for people, and purity."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, nodes_of, parsed, python_files

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_CLASS_METHODS = 20
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "urandom"}


def long_modules(files: list[SourceFile]) -> list[str]:
    """Modules longer than the house allows."""
    counted = ((file.path, file.text.count("\n")) for file in files)
    return [f"{path}: {lines} lines, at most {MAX_MODULE_LINES}" for path, lines in counted if lines > MAX_MODULE_LINES]


def long_functions(files: list[SourceFile]) -> list[str]:
    """Functions longer than the house allows, decorators and docstring included."""
    found = []
    for file in files:
        for function in _functions(file):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{file.path}:{function.lineno} {function.name}: {lines} lines")
    return found


def wide_classes(files: list[SourceFile]) -> list[str]:
    """Classes with more methods than the house allows. What reads as an attribute is none."""
    found = []
    for file in files:
        for node in nodes_of(file):
            methods = sum(map(_is_method, node.body)) if isinstance(node, ast.ClassDef) else 0
            if isinstance(node, ast.ClassDef) and methods > MAX_CLASS_METHODS:
                found.append(f"{file.path}:{node.lineno} {node.name}: {methods} methods")
    return found


def _is_method(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
    return decorators.isdisjoint({"property", "cached_property", "overload"})


def modules_without_words(files: list[SourceFile]) -> list[str]:
    """Modules that hold something and don't say what they are for."""
    return [file.path for file in files if file.text.strip() and not ast.get_docstring(parsed(file))]


def borrowings(files: list[SourceFile]) -> list[str]:
    """Imports of test modules. What several tests need stands in a module of its own."""
    return [
        f"{file.path}:{line} {name}"
        for file in files
        for line, name in _imports(file)
        if any(part.startswith("test_") for part in name.split("."))
    ]


def _imports(file: SourceFile) -> Iterator[tuple[int, str]]:
    for node in nodes_of(file):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, each.name) for each in names)
            case ast.ImportFrom(module=module, names=names):
                # What is imported may be a module or a name of one; a name of a test begins with `test_` as well.
                yield from ((node.lineno, f"{module or ''}.{each.name}") for each in names)


def impurities(files: list[SourceFile]) -> list[str]:
    """Awaits and clocks in rooms that decide. What they import is import-linter's part."""
    found = []
    for file in files:
        if file.is_pure:
            nodes = nodes_of(file)
            found += [f"{file.path}:{line} {what}" for node in nodes for line, what in _impure(node)]
    return found


def _impure(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
        yield node.lineno, type(node).__name__
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
        yield node.lineno, f"call of {node.func.attr}()"


def _functions(file: SourceFile) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes_of(file) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _planted(path: str, text: str) -> list[SourceFile]:
    return [SourceFile(path, text)]


def test_modules_are_short() -> None:
    assert long_modules(python_files()) == []
    assert long_modules(_planted("libs/x.py", "\n" * 600)) == []
    assert long_modules(_planted("libs/x.py", "\n" * 601)) == ["libs/x.py: 601 lines, at most 600"]


def test_functions_are_short() -> None:
    assert long_functions(python_files()) == []
    assert long_functions(_planted("libs/x.py", "def f():\n" + "    1\n" * 69)) == []
    assert long_functions(_planted("libs/x.py", "async def f():\n" + "    1\n" * 70)) == ["libs/x.py:1 f: 71 lines"]


def test_classes_are_narrow() -> None:
    assert wide_classes(python_files()) == []
    methods = "\n".join(f"    def f{number}(self): ..." for number in range(20))
    properties = "    @property\n    def p(self): ..."
    assert wide_classes(_planted("libs/x.py", f"class A:\n{methods}\n{properties}")) == []
    text = f"def f():\n  class A:\n{methods}\n    async def g(self): ..."
    assert wide_classes(_planted("services/x.py", text)) == ["services/x.py:2 A: 21 methods"]


def test_every_module_says_what_it_is_for() -> None:
    assert modules_without_words(python_files()) == []
    assert modules_without_words(_planted("libs/x.py", "import os\n")) == ["libs/x.py"]
    assert modules_without_words(_planted("libs/x/__init__.py", "")) == []


def test_no_module_borrows_from_a_test_module() -> None:
    assert borrowings(python_files()) == []
    for bad in (
        "from libs.tests.test_x import f",
        "import a.tests.test_x",
        "from a.tests import test_x",
        "from . import test_x",
    ):
        assert len(borrowings(_planted("libs/tests/test_y.py", bad))) == 1, bad
    assert borrowings(_planted("libs/tests/test_y.py", "from a.tests.helpers import contest_x\nimport a.tests")) == []


def test_deciding_rooms_have_no_clock_and_no_await() -> None:
    assert impurities(python_files()) == []
    text = "async def f(t):\n    await t\n    return datetime.now(UTC)\n"
    assert impurities(_planted("libs/oa_khala/x.py", text)) == [
        "libs/oa_khala/x.py:1 AsyncFunctionDef",
        "libs/oa_khala/x.py:2 Await",
        "libs/oa_khala/x.py:3 call of now()",
    ]
    assert impurities(_planted("services/runtime/domain/x.py", text)) != []
    assert impurities(_planted("services/control/orgs/domain.py", text)) != []
    assert impurities(_planted("services/control/sign_in/domain/x.py", text)) != []
    assert impurities(_planted("libs/oa_client/core/x.py", text)) != []
    assert impurities(_planted("libs/oa_client/edge/x.py", text)) == []
    assert impurities(_planted("services/runtime/app/x.py", text)) == []
    assert impurities(_planted("libs/oa_khala/tests/test_x.py", text)) == []
