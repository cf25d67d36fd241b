"""The imports of a program: our modules, and names from elsewhere.

They are read from the source, not from a running process: an import inside a function counts, an import only for type
checkers does not. Only the standard library is needed, so that this works where an image is built.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOTS = (".", "libs", "gen")
"""The import roots of a checkout."""


@dataclass(frozen=True)
class Imports:
    """The direct and indirect imports of some programs."""

    ours: dict[str, Path]
    """Module -> its file, relative to the import root that contains it; includes the packages above each module."""
    foreign: frozenset[str]
    """Dotted names that neither we nor the standard library define, such as `google.rpc.status_pb2`."""


def imports_of(programs: Iterable[str], checkout: Path) -> Imports:
    """Follow the imports of `programs`: modules, or packages with a `__main__`.

    Raises LookupError if one is missing.
    """
    names = _our_names(checkout)
    ours: dict[str, Path] = {}
    foreign: set[str] = set()
    waiting = [_main_of(program, checkout) for program in programs]
    while waiting:
        name = waiting.pop()
        if name.partition(".")[0] not in names:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                foreign.add(name)
            continue
        if name in ours:
            continue
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        if found := _file_of(name, checkout):  # otherwise it is a namespace, or a name that its module defines
            root, ours[name] = found
            waiting += _imports_in(root / ours[name])
    return Imports(ours, frozenset(foreign))


def _our_names(checkout: Path) -> set[str]:
    hidden = {"tests", "tools", "benchmarks"}
    return {
        path.name
        for root in ROOTS
        for path in (checkout / root).iterdir()
        if path.is_dir() and path.name.isidentifier() and path.name not in hidden
    }


def _main_of(program: str, checkout: Path) -> str:
    for name in (f"{program}.__main__", program):
        if _file_of(name, checkout):
            return name
    raise LookupError(f"there is no module {program} in {checkout}")


@cache
def _file_of(name: str, checkout: Path) -> tuple[Path, Path] | None:
    path = Path(*name.split("."))
    for root in ROOTS:
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if (checkout / root / file).is_file():
                return checkout / root, file
    return None


@cache
def _imports_in(file: Path) -> tuple[str, ...]:
    return tuple(_imported_by(ast.parse(file.read_text("utf-8"))))


def _imported_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.If(test=test, orelse=orelse) if ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in orelse:
                yield from _imported_by(other)
            return
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str() as module, names=names, level=0):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.ImportFrom():
            raise ValueError("relative imports are not followed; write the whole name")
    for child in ast.iter_child_nodes(node):
        yield from _imported_by(child)
