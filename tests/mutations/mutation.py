"""One planted defect: a few words of a function's source are others, for as long as it is applied."""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """In the source of `function`, `old` becomes `new`. `old` stands there once; a property is named itself."""

    function: Any
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """`says` tells what is wrong. `tests` are of the room; they are asked when the simulation finds nothing."""

    name: str
    says: str
    edits: tuple[Edit, ...]
    tests: str = ""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The defect is there for the time of the block, for everybody who holds the function."""
        functions: dict[FunctionType, list[Edit]] = {}
        for edit in self.edits:
            functions.setdefault(_function(edit), []).append(edit)
        planted = [(function, function.__code__, _code(function, edits)) for function, edits in functions.items()]
        try:
            for function, _, code in planted:
                function.__code__ = code
            yield
        finally:
            for function, whole, _ in planted:
                function.__code__ = whole


def _function(edit: Edit) -> FunctionType:
    found = edit.function.fget if isinstance(edit.function, property) else edit.function
    assert isinstance(found, FunctionType), found
    return found


def _code(function: FunctionType, edits: list[Edit]) -> CodeType:
    """The code of the function with the defect. Raises ValueError when the source has changed under the mutation."""
    source = textwrap.dedent(inspect.getsource(function)).removeprefix("@property\n").removeprefix("@staticmethod\n")
    for edit in edits:
        if source.count(edit.old) != 1:
            times = source.count(edit.old)
            raise ValueError(f"{function.__qualname__} has {edit.old!r} {times} times; adapt the mutation")
        source = source.replace(edit.old, edit.new)
    made: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source
    exec(compile(text, f"<{function.__qualname__}, mutated>", "exec"), function.__globals__, made)  # noqa: S102
    code = made[function.__name__].__code__
    assert isinstance(code, CodeType)
    return code
