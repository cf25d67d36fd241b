"""What one run is to its clients: the single copy that concurrent histories are checked against.

Written from the contract (docs/protocol/append.md), not from `oa_runlog.authority.decide`, and without everything that
does not matter for order: bytes, chains, sizes, pace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .checker import Operation, Unknown

FINAL = frozenset({"succeeded", "failed", "canceled"})


@dataclass(frozen=True)
class Append:
    """Appends `count` events with content `content` under `key`, as `worker` with the lease `epoch`.

    `expected_seq` None appends whatever the seq is. With `finish` the one event ends the run with that outcome.
    Without a key the message breaks a rule, and is refused whatever the run's state.
    """

    key: str
    content: str
    count: int
    expected_seq: int | None = None
    worker: str = "w"
    epoch: int = 1
    finish: str = ""


@dataclass(frozen=True)
class Read:
    """Reads where the run stands."""


@dataclass(frozen=True)
class Assign:
    """Gives the run to a worker, if nobody has it."""

    worker: str


@dataclass(frozen=True)
class LoseLease:
    """Takes the lease back from a worker, if it is still the one that has it."""

    worker: str
    epoch: int


@dataclass(frozen=True)
class Cancel:
    """Asks for the run to end."""


@dataclass(frozen=True)
class Deadline:
    """The time is over that a canceled run's worker had: the authority ends the run."""


@dataclass(frozen=True)
class Appended:
    """Stored now; or nothing was to be stored (`again`), because it had its effect before."""

    first_seq: int
    last_seq: int
    again: bool


@dataclass(frozen=True)
class Done:
    """Accepted; the answer did not tell the seqs."""


@dataclass(frozen=True)
class Refused:
    """Not stored. `current` is the seq that a `seq_conflict` tells, and the epoch that a `stale_epoch` tells."""

    reason: str
    current: int | None = None


@dataclass(frozen=True)
class Latest:
    """Answer to Read."""

    seq: int
    status: str = "running"
    epoch: int = 1


Call = Append | Read | Assign | LoseLease | Cancel | Deadline
Answer = Appended | Done | Refused | Latest
RunOperation = Operation[Call, Answer]


@dataclass(frozen=True)
class RunLog:
    """State: where the run stands, who has it, and what each key stored."""

    seq: int
    status: str = "running"
    worker: str = "w"
    epoch: int = 1
    fenced: bool = False
    stored: frozenset[tuple[str, tuple[str, str, int], int]] = frozenset()
    """Key, content, first seq."""

    @property
    def is_leased(self) -> bool:
        return bool(self.worker) and not self.fenced and self.status not in FINAL

    def by_key(self, key: str) -> tuple[tuple[str, str, int], int] | None:
        return next(((content, first) for k, content, first in self.stored if k == key), None)

    def unchanged(self) -> tuple[RunLog, Appended]:
        return self, Appended(self.seq, self.seq, again=True)

    def grown(self, count: int, **changes: Any) -> tuple[RunLog, Appended]:
        last = self.seq + count
        return replace(self, seq=last, **changes), Appended(self.seq + 1, last, again=False)


@dataclass(frozen=True)
class RunModel:
    """One run as it stands when the history begins: held by "w" with epoch 1, unless `start` says otherwise."""

    start_seq: int = 0
    start: RunLog | None = None
    max_requeues: int = 3

    def initial(self) -> RunLog:
        return self.start or RunLog(self.start_seq)

    def step(self, state: RunLog, call: Call, answer: Answer | Unknown) -> RunLog | None:
        after, right = self._carry_out(state, call)
        fits = isinstance(answer, Unknown) or answer == right
        return after if fits or (isinstance(answer, Done) and isinstance(right, Appended)) else None

    def _carry_out(self, state: RunLog, call: Call) -> tuple[RunLog, Answer]:
        match call:
            case Read():
                return state, Latest(state.seq, state.status, state.epoch)
            case Append():
                return _append(state, call)
            case Assign():
                return _assign(state, call)
            case LoseLease():
                return self._lose(state, call)
            case Cancel():
                return _cancel(state)
            case Deadline():
                return _end_canceled(state)

    def _lose(self, state: RunLog, call: LoseLease) -> tuple[RunLog, Answer]:
        if not state.is_leased or (state.worker, state.epoch) != (call.worker, call.epoch):
            return state.unchanged()
        if state.status == "canceling":
            return state.grown(2, fenced=True, status="canceled")
        if state.epoch <= self.max_requeues:  # every attempt has its own epoch
            return state.grown(1, fenced=True)
        return state.grown(2, fenced=True, status="failed")


def _append(state: RunLog, call: Append) -> tuple[RunLog, Answer]:
    """In the order of the contract: the message, key, lease, expected seq, state machine."""
    if not call.key:
        return state, Refused("missing_field")
    content = (call.content, call.finish, call.count)
    known = state.by_key(call.key)
    if known is not None:
        if known[0] != content:
            return state, Refused("idempotency_conflict")
        return state, Appended(known[1], known[1] + call.count - 1, again=True)
    if state.fenced or (call.worker, call.epoch) != (state.worker, state.epoch):
        return state, Refused("stale_epoch", state.epoch)
    if call.expected_seq is not None and call.expected_seq != state.seq:
        return state, Refused("seq_conflict", state.seq)
    if state.status in FINAL:
        if not call.finish:
            return state, Refused("invalid_transition")
        return state.unchanged() if call.finish == state.status else (state, Refused("already_finished"))
    if call.finish == "canceled" and state.status != "canceling":
        return state, Refused("invalid_transition")
    stored = state.stored | {(call.key, content, state.seq + 1)}
    return state.grown(call.count, stored=stored, status=call.finish or state.status)


def _assign(state: RunLog, call: Assign) -> tuple[RunLog, Answer]:
    if state.is_leased:
        return state, Refused("stale_epoch", state.epoch)
    if state.status in FINAL:
        return state, Refused("invalid_transition")
    return state.grown(1, worker=call.worker, epoch=state.epoch + 1, fenced=False, status="running")


def _cancel(state: RunLog) -> tuple[RunLog, Answer]:
    if state.status in FINAL or state.status == "canceling":
        return state.unchanged()
    if state.is_leased:
        return state.grown(1, status="canceling")
    return state.grown(2, status="canceled", fenced=True)


def _end_canceled(state: RunLog) -> tuple[RunLog, Answer]:
    return state.grown(1, status="canceled", fenced=True) if state.status == "canceling" else state.unchanged()


def has_no_effect(operation: RunOperation) -> bool:
    """Whether its answer says that it changed nothing: a history without it is no harder to explain."""
    match operation.answer:
        case Latest() | Refused() | Appended(again=True):
            return True
        case _:
            return False
