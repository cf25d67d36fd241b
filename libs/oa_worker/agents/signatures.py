"""What the annotations of an agent's or a step's function say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """The types in its annotations, also of a partial or an object that can be called; none where there are none.
    A class returns itself.

    Raises NameError for one whose name is not in the module of the function.
    """
    while isinstance(function, partial):
        function = function.func
    if inspect.isclass(function):
        return {"return": function}
    try:
        return get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except TypeError:  # of what is written in C
        return {}


def returned_by(function: Callable[..., object]) -> Any:
    """The type of what it returns; Any if it does not say. Raises as `hints_of`."""
    return hints_of(function).get("return", Any)
