"""A history that can't be explained, made as short as it stays so, for people."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from math import inf
from typing import TypeVar

from .checker import UNKNOWN, Model, Operation, SearchTooLong, linearize

MAX_STATES = 50_000
"""States that are visited to make a history shorter by one operation."""

State = TypeVar("State", bound=Hashable)
Call = TypeVar("Call", bound=Hashable)
Answer = TypeVar("Answer")


def shortest_failure(
    model: Model[State, Call, Answer],
    history: Sequence[Operation[Call, Answer]],
    has_no_effect: Callable[[Operation[Call, Answer]], bool],
) -> list[Operation[Call, Answer]]:
    """The shortest beginning of `history` that is refused, without operations that its refusal does not need.

    Both keep the verdict true: a beginning of an explainable history is explainable, and so is one without an operation
    that changed nothing. Calls without an answer stay: they are what might have explained it, and did not.
    """
    try:
        return _shortened(model, history, has_no_effect)
    except SearchTooLong:  # on a slow machine many calls get no answer; the whole history is true as well
        return list(history)


def _shortened(
    model: Model[State, Call, Answer],
    history: Sequence[Operation[Call, Answer]],
    has_no_effect: Callable[[Operation[Call, Answer]], bool],
) -> list[Operation[Call, Answer]]:
    def is_refused(some: Sequence[Operation[Call, Answer]]) -> bool:
        return linearize(model, some, MAX_STATES) is None

    moments = sorted({operation.returned for operation in history if operation.returned != inf})
    first = bisect_left(moments, True, key=lambda moment: is_refused(until(history, moment)))
    failing = until(history, moments[first])
    for operation in list(failing):
        rest = [other for other in failing if other is not operation]
        if has_no_effect(operation) and is_refused(rest):
            failing = rest
    return failing


def until(history: Sequence[Operation[Call, Answer]], moment: float) -> list[Operation[Call, Answer]]:
    """What was known of `history` at `moment`: later answers are not there yet."""
    begun = [operation for operation in history if operation.invoked <= moment]
    return [
        operation if operation.returned <= moment else replace(operation, answer=UNKNOWN, returned=inf)
        for operation in begun
    ]


def show(history: Sequence[Operation[Call, Answer]]) -> str:
    """One line an operation, by the time of its call, in milliseconds since the first."""
    ordered = sorted(history, key=lambda operation: operation.invoked)
    start = ordered[0].invoked if ordered else 0.0
    return "\n".join(_line(operation, start) for operation in ordered)


def _line(operation: Operation[Call, Answer], start: float) -> str:
    begin, end = (operation.invoked - start) * 1000, (operation.returned - start) * 1000
    returned = "      …" if end == inf else f"{end:7.2f}"
    return f"{begin:7.2f} –{returned}  {operation.client:<4} {operation.call} -> {operation.answer}"
