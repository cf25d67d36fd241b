"""The types that the annotations of an agent's or a step's function state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return the types in a function's annotations, if any; the function may be a partial or a callable object.
    A class returns itself.

    Raises NameError for a type whose name is not in the module of the function.
    """
    while isinstance(function, partial):
        function = function.func
    if inspect.isclass(function):
        return {"return": function}
    try:
        return get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except TypeError:  # the function is written in C
        return {}


def returned_by(function: Callable[..., object]) -> Any:
    """Return the type of a function's result; Any if the function does not state it. Raises as `hints_of` does."""
    return hints_of(function).get("return", Any)
