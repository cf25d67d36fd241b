"""What production modules offer is used by production, or it stands in the list below with the reason why it stays."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, parsed, python_files

ROOMS = ("apps/", "libs/")
NOT_PRODUCTION = ("libs/oa_testing/", "libs/oa_localstack/")
"""One is for tests, and the other is also what the tests' fixtures start servers with."""
_PLAIN = {
    "asynccontextmanager",
    "cache",
    "cached_property",
    "classmethod",
    "contextmanager",
    "property",
    "staticmethod",
}
"""Decorators that register nothing. A function with another one (`oa.command`) is called by what it registers with."""
_OPEN = {"Protocol", "Generic", "NamedTuple", "Enum", "Exception", "ABC"}
"""Foreign bases that call none of the methods of a class. Any other (a servicer, asyncio's protocols) may call all."""

ALLOWED = {
    "MemoryStore": "API: for a client that keeps nothing between two starts",
    "TRIGGERS": "what the table of runs may be asked about: recorded histories are complete by it",
    "add_registered_method_handlers": "generated code calls it",
    "decode_body": "API: the inverse of encode_body",
    "dump_key": "the inverse of load_key: one module knows the form of a key file",
    "encode_event": "API: writes one event as the authority stores it",
    "requested": "API: for authors of adapters",
    "state_hash": "API: recorded histories are compared by it",
    "suspended": "API: for surfaces that go to sleep",
    "worker_lifecycle": "API: the name of a topic that clients may subscribe to",
}
"""Name -> why it stays though only tests use it."""


def unused(files: list[SourceFile]) -> list[str]:
    """Public functions, methods, classes and constants of production modules that only tests use.

    A use is told by its name alone, so a namesake that is used hides one that is not.
    """
    used = {name for file in files if not _is_for_tests(file) for name in _used(parsed(file))}
    production = [file for file in files if _is_production(file)]
    ours = {node.name for file in production for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)}
    return [
        f"{file.path}:{line} {name}"
        for file in production
        for line, name in _offered(parsed(file), ours)
        if name not in used and name not in ALLOWED
    ]


def _is_for_tests(file: SourceFile) -> bool:
    return file.is_test or file.path.startswith("libs/oa_testing/") or file.parts[-1] == "conftest.py"


def _is_production(file: SourceFile) -> bool:
    return file.path.startswith(ROOMS) and not file.path.startswith(NOT_PRODUCTION) and not _is_for_tests(file)


def _used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                yield name


def _offered(tree: ast.Module, ours: set[str]) -> Iterator[tuple[int, str]]:
    for node in tree.body:
        yield from _public(node)
        if isinstance(node, ast.ClassDef) and all(_last_name(base) in ours | _OPEN for base in node.bases):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _public(member)


def _public(node: ast.stmt) -> Iterator[tuple[int, str]]:
    names: list[str] = []
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            names = [name] if all(_last_name(each) in _PLAIN for each in node.decorator_list) else []
        case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            names = [name]
        case ast.Assign(targets=targets):
            names = [target.id for target in targets if isinstance(target, ast.Name)]
    yield from ((node.lineno, name) for name in names if not name.startswith("_"))


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`, `a.b.c(…)` and `a.b.c[…]`."""
    match node:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return _last_name(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _planted(text: str, path: str = "libs/oa_runlog/x.py") -> list[SourceFile]:
    return [SourceFile(path, text)]


def test_what_production_offers_is_used_by_more_than_tests() -> None:
    assert unused(python_files()) == []
    for bad in (
        "def f(): ...",
        "async def f(): ...",
        "@property\ndef f(): ...",
        "class F: ...",
        "F = 1",
        "F: int = 1",
        "class _A:\n    def f(self): ...",
        "class _A(Generic[E]):\n    def f(self): ...",
        "class _A: ...\nclass _B(_A):\n    def f(self): ...",
        "import f\ndef f(): ...",
    ):
        assert len(unused(_planted(bad))) == 1, bad
    for good in (
        "def f(): ...\nf()",
        "class _A:\n    def f(self): ...\n_A().f()",
        "@oa.command()\ndef f(): ...",
        "class _A(Servicer):\n    def F(self): ...",
        "def _f(): ...\n_F = 1",
    ):
        assert unused(_planted(good)) == [], good


def test_a_use_by_a_test_is_none_and_one_by_a_tool_is() -> None:
    for path, count in (("libs/oa_runlog/tests/test_x.py", 1), ("libs/oa_testing/y.py", 1), ("tools/y.py", 0)):
        assert len(unused(_planted("def f(): ...") + _planted("f()", path))) == count, path
    assert unused(_planted("def f(): ...", "libs/oa_testing/y.py")) == []


def test_every_exception_is_needed() -> None:
    found = {entry.rpartition(" ")[2] for entry in _without_exceptions()}
    assert set(ALLOWED) <= found


def _without_exceptions() -> list[str]:
    kept = dict(ALLOWED)
    ALLOWED.clear()
    try:
        return unused(python_files())
    finally:
        ALLOWED.update(kept)
