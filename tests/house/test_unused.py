"""What production modules offer is used by production, or it stands in the list below with the reason why it stays."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, parsed, python_files
from tests.house.uses import Program, Uses, module_of, names_of, program_of, uses_of

ROOMS = ("apps/", "libs/", "services/")
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
_OPEN = {"typing.Protocol", "typing.Generic", "typing.NamedTuple", "enum.Enum", "enum.StrEnum", "Exception", "abc.ABC"}
"""Foreign bases that call none of the methods of a class. Any other (a servicer, asyncio's protocols) may call all."""

ALLOWED = {
    "TRIGGERS": "what the table of runs may be asked about: recorded histories are complete by it",
    "add_registered_method_handlers": "generated code calls it",
    "create_schedule": "API: for programs that schedule runs; `oa` has options where these have values",
    "decode_body": "API: the inverse of encode_body",
    "on_url": "httptools calls it",
    "play_with_deaths": "API: for tests of agents",
    "replay": "API: the state that stored events lead to, in one call",
    "replay_folder": "API: for tests of agents",
    "runs_of": "API: for programs that follow many runs by one token",
    "state_hash": "API: recorded histories are compared by it",
    "saved": "API: for tests of agents",
    "tool": "API: for authors of agents",
    "verification": "API: for authors of agents",
    "worker_lifecycle": "API: the name of a topic that clients may subscribe to",
}
"""Name -> why it stays though only tests use it."""


def unused(files: list[SourceFile]) -> list[str]:
    """Public functions, methods, classes and constants of production modules that only tests use.

    Where nothing says of what class a value is, its attributes count for all classes.
    """
    program = program_of(files)
    uses = uses_of([file for file in files if not _is_for_tests(file)], program)
    return [
        f"{file.path}:{line} {name}"
        for file in files
        if _is_production(file)
        for line, name in _unused(file, program, uses)
        if name not in ALLOWED
    ]


def _is_for_tests(file: SourceFile) -> bool:
    return file.is_test or file.path.startswith("libs/oa_testing/") or file.parts[-1] == "conftest.py"


def _is_production(file: SourceFile) -> bool:
    return file.path.startswith(ROOMS) and not _is_for_tests(file)


def _unused(file: SourceFile, program: Program, uses: Uses) -> Iterator[tuple[int, str]]:
    module = module_of(file)
    for node in parsed(file).body:
        yield from ((node.lineno, name) for name in _public(node) if f"{module}.{name}" not in uses.names)
        if isinstance(node, ast.ClassDef) and _all_known(program.bases[f"{module}.{node.name}"], program):
            for member in node.body:
                for name in _public(member) if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) else ():
                    if name not in uses.attributes and f"{module}.{node.name}.{name}" not in uses.methods:
                        yield member.lineno, name


def _all_known(bases: list[str], program: Program) -> bool:
    """Whether none of the bases is one that may call any method."""
    return all(_all_known(program.bases[base], program) if base in program.bases else base in _OPEN for base in bases)


def _public(node: ast.stmt) -> list[str]:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
    registered = any(_last_name(each) not in _PLAIN for each in decorators)
    return [] if registered else [name for name in names_of(node) if not name.startswith("_")]


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
        "from typing import Generic\nclass _A(Generic[E]):\n    def f(self): ...",
        "class _A: ...\nclass _B(_A):\n    def f(self): ...",
        "import f\ndef f(): ...",
        "def f(): ...\ndef _g():\n    f = 1\n    return f",
        "def f(): ...\ndef _g(f): return f",
        "class _A:\n    def f(self): ...\ndef _g(a: int): return _A(), f",
    ):
        assert len(unused(_planted(bad))) == 1, bad
    for good in (
        "def f(): ...\nf()",
        "class _A:\n    def f(self): ...\n_A().f()",
        "@oa.command()\ndef f(): ...",
        "class _A(Servicer):\n    def F(self): ...",
        "import asyncio\nclass _A(asyncio.Protocol):\n    def f(self): ...",
        "class _A:\n    def f(self): ...\ngetattr(_A(), 'f', None)",
        "def _f(): ...\n_F = 1",
        "def f(): ...\ndef _g(x=f): ...",
    ):
        assert unused(_planted(good)) == [], good


def test_a_use_by_a_test_is_none_and_one_by_a_tool_is() -> None:
    for path, count in (("libs/oa_runlog/tests/test_x.py", 1), ("libs/oa_testing/y.py", 1), ("tools/y.py", 0)):
        assert len(unused(_planted("def f(): ...") + _planted("from oa_runlog.x import f\nf()", path))) == count, path
    assert unused(_planted("def f(): ...", "libs/oa_testing/y.py")) == []


def test_a_namesake_that_is_used_hides_none_that_is_not() -> None:
    """What is imported from elsewhere, and what is called on a value of another class, is another thing."""
    elsewhere = _planted("def f(): ...\nclass A:\n    def m(self): ...\nclass B(A): ...", "libs/oa_wire/y.py")
    for use in (
        "import oa_wire.y\noa_wire.y.f()",
        "from oa_wire import y\ny.f()",
        "from oa_wire.y import f as g\ng()",
        "from oa_runlog.again import f\nf()",
    ):
        files = [*_planted("def f(): ..."), *elsewhere, *_planted("from oa_wire.y import f", "libs/oa_runlog/again.py")]
        found = unused([*files, *_planted(use, "apps/cli/z.py")])
        assert [entry for entry in found if entry.endswith(" f")] == ["libs/oa_runlog/x.py:1 f"], use
    for use in (
        "def _g(a: A): a.m()",
        "def _g(a: A | None): a.m()",
        "def _g(b: B): b.m()",
        "class _C:\n    def __init__(self, a: A): self._a = a\n    def _g(self): self._a.m()",
        "class _C:\n    _a: A\n    def _g(self): self._a.m()",
        "class _C(B):\n    def _g(self): self.m()",
    ):
        namesake = _planted("class _N:\n    def m(self): ...")
        found = unused([*namesake, *elsewhere, *_planted(f"from oa_wire.y import A, B\n{use}", "apps/cli/z.py")])
        assert [entry for entry in found if entry.endswith(" m")] == ["libs/oa_runlog/x.py:2 m"], use


def test_where_nothing_says_of_what_class_a_value_is_it_may_be_any() -> None:
    protocol = "from typing import Protocol\nclass _P(Protocol):\n    def m(self): ...\n"
    for use in ("def _g(p: _P): p.m()", "def _g(p): p.m()", "def _g(a: _A):\n    a = other()\n    a.m()"):
        files = _planted("class _N:\n    def m(self): ...") + _planted(f"{protocol}class _A: ...\n{use}", "apps/y.py")
        assert unused(files) == [], use


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
