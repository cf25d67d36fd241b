"""Is a recorded concurrent history one that a single copy could have produced?

The search is Wing and Gong's (1993), with Lowe's memory of visited (done, state) pairs (2017): try each operation
that could have come first, let the model say whether its answer fits, and go on with the rest. An operation may come
first if no other one that is still to be placed had returned before it was invoked.

An operation whose answer was never seen (a timeout, a cut connection) may have taken effect at any time after it was
invoked, or never: it returns at infinity, its output is `UNKNOWN`, and it may be left out. So it is placed only where
it changes something, and of equal ones the first first: the rest of the search would find nothing else.

Operations that were sent over one stream, without waiting for answers, take effect in the order of their sending: none
is placed after a later one of its stream. One that never took effect is passed over.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar


class Unknown:
    """The type of `UNKNOWN`: the answer was never seen."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()

State = TypeVar("State", bound=Hashable)
Call = TypeVar("Call", bound=Hashable)
Answer = TypeVar("Answer")
Call_contra = TypeVar("Call_contra", bound=Hashable, contravariant=True)
Answer_contra = TypeVar("Answer_contra", contravariant=True)


@dataclass(frozen=True)
class Operation(Generic[Call, Answer]):
    """One call as its client saw it. Times are of one clock that all clients share; only their order counts.

    `stream` names what it was sent over, if that keeps order: what was sent over it first takes effect first.
    """

    client: str
    call: Call
    answer: Answer | Unknown
    invoked: float
    returned: float = inf
    stream: str = ""


class Model(Protocol[State, Call_contra, Answer_contra]):
    """The single copy that the system claims to behave like."""

    def initial(self) -> State: ...

    def step(self, state: State, call: Call_contra, answer: Answer_contra | Unknown) -> State | None:
        """The state after `call`, or None if a single copy in `state` would not have given `answer`."""
        ...


class SearchTooLong(Exception):
    """There are more states to visit than was allowed."""


def linearize(
    model: Model[State, Call, Answer], history: Sequence[Operation[Call, Answer]], max_states: float = inf
) -> list[Operation[Call, Answer]] | None:
    """An order of the history that the model accepts and that keeps real time, or None if there is none.

    Without recursion, so that long histories don't end at the interpreter's limit. Raises SearchTooLong when it would
    visit more than `max_states`: with many calls without an answer there is no end to them.
    """
    operations = sorted(history, key=lambda operation: operation.invoked)
    everything = (1 << len(operations)) - 1
    optional = sum(1 << i for i, operation in enumerate(operations) if isinstance(operation.answer, Unknown))
    later = _later_on_their_streams(operations)
    visited: set[tuple[int, State]] = set()
    chosen: list[Operation[Call, Answer]] = []
    trail = [_successors(model, operations, later, 0, model.initial())]
    done = 0
    dones: list[int] = []
    while True:
        if (everything & ~done) & ~optional == 0:
            return chosen
        step = next(trail[-1], None)
        if step is None:
            trail.pop()
            if not dones:
                return None
            done = dones.pop()
            chosen.pop()
            continue
        index, state = step
        after = done | 1 << index
        if (after, state) in visited:
            continue
        visited.add((after, state))
        if len(visited) > max_states:
            raise SearchTooLong
        dones.append(done)
        done = after
        chosen.append(operations[index])
        trail.append(_successors(model, operations, later, done, state))


def _later_on_their_streams(operations: Sequence[Operation[Call, Answer]]) -> list[int]:
    """For each operation, those that were sent after it over its stream, as a set of bits."""
    later, seen = [0] * len(operations), dict[str, int]()
    for index in reversed(range(len(operations))):
        if stream := operations[index].stream:
            later[index] = seen.get(stream, 0)
            seen[stream] = later[index] | 1 << index
    return later


def _successors(
    model: Model[State, Call, Answer],
    operations: Sequence[Operation[Call, Answer]],
    later: Sequence[int],
    done: int,
    state: State,
) -> Iterator[tuple[int, State]]:
    """Each (index, state after) that can come next: not yet placed, possible in real time, accepted by the model."""
    earliest_return = min(
        (operation.returned for i, operation in enumerate(operations) if not done >> i & 1), default=inf
    )
    tried: set[tuple[Call, str]] = set()
    for index, operation in enumerate(operations):
        if operation.invoked > earliest_return:
            return  # sorted by invocation: none of the rest can come first either
        if done >> index & 1 or done & later[index]:
            continue
        unanswered = isinstance(operation.answer, Unknown)
        if unanswered and (operation.call, operation.stream) in tried:
            continue
        after = model.step(state, operation.call, operation.answer)
        if unanswered:
            tried.add((operation.call, operation.stream))
        if after is not None and not (unanswered and after == state):
            yield index, after
