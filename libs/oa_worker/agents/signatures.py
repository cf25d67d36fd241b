"""The types that the annotations of an agent's or a step's function state."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return the types in a function's annotations, if any; the function may be a partial or a callable object.
    A class returns itself.

    Raises NameError for a type whose name is not in the module of the function.
    """
    routine = _routine(function)
    if inspect.isclass(routine):
        return {"return": routine}
    try:
        return get_type_hints(routine, include_extras=True)
    except TypeError:  # the function is written in C
        return {}


def _routine(function: Callable[..., object]) -> Callable[..., object]:
    """The function, or class, that is called in the end."""
    while isinstance(function, partial):
        function = function.func
    return function if inspect.isclass(function) or inspect.isroutine(function) else type(function).__call__


def returned_by(function: Callable[..., object]) -> Any:
    """Return the type of a function's result; Any if the function does not state it. If the result is to be awaited
    (`def quote() -> Awaitable[int]`), return the type of what that gives.

    Raises NameError for a result whose type is not in the module of the function; its arguments don't matter.
    """
    try:
        stated = hints_of(function).get("return", Any)
    except NameError:
        stated = _result_alone(function)
    origin, arguments = get_origin(stated), get_args(stated)
    is_awaited = isinstance(origin, type) and issubclass(origin, Awaitable) and arguments
    return arguments[-1] if is_awaited else stated


def _result_alone(function: Callable[..., object]) -> Any:
    def result() -> None:
        """Stands for a function without arguments."""

    named = inspect.unwrap(_routine(function))
    result.__annotations__ = {"return": named.__annotations__.get("return", Any)}
    variables = {each.__name__: each for each in getattr(named, "__type_params__", ())}
    hints = get_type_hints(result, getattr(named, "__globals__", {}), variables, include_extras=True)
    return hints["return"]
