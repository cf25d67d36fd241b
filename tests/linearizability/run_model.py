"""What one run's log is to its clients: the single copy that concurrent histories are checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .checker import Unknown


@dataclass(frozen=True)
class Append:
    """Appends `count` events with content `content` under `key`; `expected_seq` None appends whatever the seq is."""

    key: str
    content: str
    count: int
    expected_seq: int | None = None


@dataclass(frozen=True)
class Read:
    """Reads the run's newest seq."""


@dataclass(frozen=True)
class Appended:
    """Stored, now or (`again`) by an earlier call with the same key."""

    first_seq: int
    last_seq: int
    again: bool


@dataclass(frozen=True)
class Refused:
    """Not stored. `current_seq` is what a `seq_conflict` tells."""

    reason: str
    current_seq: int | None = None


@dataclass(frozen=True)
class Latest:
    """Answer to Read."""

    seq: int


@dataclass(frozen=True)
class RunLog:
    """State: the newest seq, and what each key stored."""

    seq: int
    stored: frozenset[tuple[str, str, int, int]] = frozenset()

    def by_key(self, key: str) -> tuple[str, int, int] | None:
        return next(((content, first, last) for k, content, first, last in self.stored if k == key), None)


@dataclass(frozen=True)
class RunModel:
    """One run whose log stands at `start_seq` when the history begins."""

    start_seq: int

    def initial(self) -> RunLog:
        return RunLog(self.start_seq)

    def step(self, state: RunLog, call: Append | Read, answer: Appended | Refused | Latest | Unknown) -> RunLog | None:
        after, right = _carry_out(state, call)
        return after if isinstance(answer, Unknown) or answer == right else None


def _carry_out(state: RunLog, call: Append | Read) -> tuple[RunLog, Appended | Refused | Latest]:
    if isinstance(call, Read):
        return state, Latest(state.seq)
    known = state.by_key(call.key)
    if known is not None:
        content, first, last = known
        if content == call.content:
            return state, Appended(first, last, again=True)
        return state, Refused("idempotency_conflict")
    if call.expected_seq is not None and call.expected_seq != state.seq:
        return state, Refused("seq_conflict", state.seq)
    first, last = state.seq + 1, state.seq + call.count
    stored = state.stored | {(call.key, call.content, first, last)}
    return replace(state, seq=last, stored=stored), Appended(first, last, again=False)
