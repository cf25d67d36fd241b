"""The types that an agent's function declares for its input and output: `async def support(run: Run[Ask]) -> Answer`.

Tests read them here. A worker is told them by `Worker.agent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin

from oa_worker.agents.run import Run
from oa_worker.agents.signatures import hints_of


def declared_input(agent: Callable[..., object]) -> Any:
    """Return the type in `Run[…]`; None if the function states none, or one that is open (`Any`, a type variable).

    Raises TypeError for a type whose name is not in the module of the function.
    """
    stated = [hint for name, hint in _hints(agent).items() if name != "return" and get_origin(hint) is Run]
    arguments = get_args(stated[0]) if stated else ()
    return arguments[0] if arguments and arguments[0] is not Any and not isinstance(arguments[0], TypeVar) else None


def declared_output(agent: Callable[..., object]) -> Any:
    """Return the type of the result; Any if the function does not state it. Raises as `declared_input` does."""
    return _hints(agent).get("return", Any)


def _hints(agent: Callable[..., object]) -> dict[str, Any]:
    try:
        return hints_of(agent)
    except NameError as unknown:
        text = f"the types of the agent's function can't be read ({unknown}); give them as `input` and `output`"
        raise TypeError(text) from None
