"""A batch of commands, decided in order, each on the state that the ones before it left. Pure.

`Batch` starts from the state in the database (`Snapshot`) and collects what is to be stored (`Changes`). A refused
command leaves no trace, so it never affects its neighbors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun, SendInput, SettleRequest, TellChild
from oa_runlog.authority.decide import Accepted, KnownKey, NewEvent, Unchanged, decide
from oa_runlog.authority.limits import RunLimits
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.pipeline import Pipeline, Place, out_of_order
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.domain.shares import Share, ShareKind, bounds_of, without_families

CreateKey = tuple[str, str, str]
"""Org, user and idempotency key of a CreateRun."""
AppendKey = tuple[str, str]
"""Run and idempotency key of an Append."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that has to be read before a batch can be decided."""

    run_ids: tuple[str, ...]
    append_keys: tuple[str, ...]
    create_keys: tuple[CreateKey, ...]
    assignees: tuple[str, ...]
    """Workers that are to get a run."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The part of the database that is wanted. `now_ns` is the database's clock. The clock and the log's epoch are read
    after the partitions were locked."""

    now_ns: int
    log_epoch: str
    runs: Mapping[str, RunState]
    appends: Mapping[AppendKey, KnownKey]
    creates: Mapping[CreateKey, KnownKey]
    gone: Collection[str] = ()
    """Of the workers that are to get a run, those that are lost or stopped."""
    broken: Collection[str] = ()
    """Of the runs, those whose rows can't be read because of a defect."""


class StoredKey(NamedTuple):
    """The idempotency key of an append, to be stored with its first event."""

    idempotency_key: str
    fingerprint: bytes
    batch_count: int


@dataclass(slots=True)
class Changes:
    """All that a batch stores. Runs are listed once, in their last state; `created` has the commands of new ones."""

    records: dict[int, list[LogRecord]] = field(default_factory=dict)
    """Partition -> its new records, in order."""
    heads: dict[int, Head] = field(default_factory=dict)
    """Partition -> its head after the batch, for those that grow."""
    keys: dict[tuple[str, int], StoredKey] = field(default_factory=dict)
    """Run and seq of an append's first event -> its key."""
    created: dict[str, CreateRun] = field(default_factory=dict)
    runs: dict[str, RunState] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    receipts: list[SignedReceipt] = field(default_factory=list)
    """The receipts of the runs that finished."""
    log_epoch: str = ""
    """The epoch that the receipts state; empty without receipts."""
    takers: list[str] = field(default_factory=list)
    """Workers that get a run."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to a command that was not refused.

    `repeated`: the command took effect before, and nothing was stored now. `state` is the run's state after the
    command, or None if the run of a repeated CreateRun was not read.
    """

    run_id: str
    first_seq: int
    last_seq: int
    repeated: bool
    state: RunState | None


Answer = Applied | Refusal

NO_SHARES: Mapping[Share, int] = MappingProxyType({})
"""For a batch that makes no share grow."""
NO_LENDERS: Mapping[str, str] = MappingProxyType({})
"""For a batch in which no run takes the place of another one."""

_KEYED = (Append, SendInput, SettleRequest, TellChild)
"""Commands that have an idempotency key of their own in their run."""


def wanted_by(commands: list[Command]) -> Wanted:
    """Return what has to be read to decide `commands`."""
    return Wanted(
        run_ids=tuple(dict.fromkeys(c.run_id for c in commands if not isinstance(c, CreateRun))),
        append_keys=tuple(dict.fromkeys(c.idempotency_key for c in commands if isinstance(c, _KEYED))),
        create_keys=tuple(dict.fromkeys(create_key(c) for c in commands if isinstance(c, CreateRun))),
        assignees=tuple(dict.fromkeys(c.worker_id for c in commands if isinstance(c, AssignRun))),
    )


def create_key(command: CreateRun) -> CreateKey:
    """Return the key that identifies a CreateRun: another one with the same key is a repetition."""
    return command.org_id, command.user_id, command.idempotency_key


class Batch:
    """Decides commands one after the other and collects what they change."""

    def __init__(
        self,
        heads: Mapping[int, Head],
        snapshot: Snapshot,
        limits: RunLimits,
        counted: Mapping[Share, int] = NO_SHARES,
        lenders: Mapping[str, str] = NO_LENDERS,
    ) -> None:
        """`counted`: how many runs count in the shares that grow with the batch. `lenders`: run -> the run whose place
        it takes in them: its parent, or itself if a run below it has its place."""
        self.heads = dict(heads)
        """Partition -> its head after the commands applied so far."""
        self._now_ns = snapshot.now_ns
        self._limits = limits
        self.runs = dict(snapshot.runs)
        """Run -> its state after the commands applied so far."""
        self._appends = dict(snapshot.appends)
        self._creates = dict(snapshot.creates)
        self._gone = snapshot.gone
        self._broken = snapshot.broken
        self._counted = dict(counted)
        self._lenders = lenders
        self._lent: set[str] = set()
        """The runs whose place is taken."""
        self._pipelines: dict[Pipeline, Pipeline] = {}
        """Copies of the pipelines that this batch changes, after the commands applied so far: it may yet fail."""
        self.changes = Changes()

    def apply(self, command: Command, partition: int, place: Place | None = None) -> Answer:
        """Decide one more command, whose run is in `partition`; `place` is an append's place in its stream."""
        if command.run_id in self._broken:
            return Refusal("internal", "the run can't be read because of a defect of ours, which was logged; report it")
        if place is not None and (awaited := self._pipeline(place).awaited(place)) and self._known(command) is None:
            return out_of_order(awaited)
        known = self._known(command)
        if known is None and (fault := self._fault(command)):
            return fault
        decision = decide(self.runs.get(command.run_id), command, self._limits, self._now_ns, known)
        match decision:
            case Accepted():
                return self._accept(command, partition, decision)
            case Unchanged(run_id, first_seq, last_seq):
                return Applied(run_id, first_seq, last_seq, repeated=True, state=self.runs.get(run_id))
            case Refusal():
                return decision

    def _fault(self, command: Command) -> Refusal | None:
        """Return the Refusal of a command for a reason outside of its run's state, or None."""
        if isinstance(command, AssignRun) and command.worker_id in self._gone:
            return Refusal("worker_lost", "the worker is lost, or has said good-bye; give the run to another")
        full = {share.kind: bound for share, bound in self._bounds(command).items() if self._counted[share] >= bound}
        if not full:
            return None
        if (limit := full.get(ShareKind.CHILDREN)) is not None:
            text = f"a run has at most {limit} children; let them do more each"
            return Refusal("limit_reached", text, metadata={"limit": str(limit)})
        if isinstance(command, CreateRun):
            text = "another run of the thread has not ended; wait for it, or let the new one wait or interrupt it"
            return Refusal("thread_busy", text, field="spec.thread_id")
        text = "as many runs of its kind run as may run at a time; give it to a worker when one of them has ended"
        return Refusal("invalid_transition", text, field="run_id")

    def _bounds(self, command: Command) -> dict[Share, int]:
        """The shares that grow with the command, and how many runs each may have then."""
        bounds, lender = bounds_of(command, self.runs, self._limits), self._lenders.get(command.run_id, "")
        return without_families(bounds) if lender and lender not in self._lent else bounds

    def answered(self, place: Place, answer: Answer) -> None:
        """Note the answer to an append, for the appends of its stream that come after it in this batch."""
        if place.pipeline in self._pipelines or isinstance(answer, Refusal):
            self._pipelines.setdefault(place.pipeline, place.pipeline.copy()).answered(place, answer)

    def _pipeline(self, place: Place) -> Pipeline:
        return self._pipelines.get(place.pipeline, place.pipeline)

    def _known(self, command: Command) -> KnownKey | None:
        match command:
            case Append() | SendInput() | SettleRequest() | TellChild():
                return self._appends.get((command.run_id, command.idempotency_key))
            case CreateRun():
                return self._creates.get(create_key(command))
            case _:
                return None

    def _accept(self, command: Command, partition: int, accepted: Accepted) -> Applied:
        state, events = accepted.state, accepted.events
        first, count = events[0].seq, len(events)
        changes = self.changes
        for share in self._bounds(command):
            self._counted[share] += 1
        if isinstance(command, CreateRun):
            self._creates[create_key(command)] = KnownKey(command.run_id, command.fingerprint, first, count)
            changes.created[command.run_id] = command
        elif isinstance(command, AssignRun):
            changes.takers.append(command.worker_id)
            self._lent.add(self._lenders.get(command.run_id, ""))
        elif isinstance(command, _KEYED):
            key = command.idempotency_key
            self._appends[command.run_id, key] = KnownKey(command.run_id, command.fingerprint, first, count)
            changes.keys[command.run_id, first] = StoredKey(key, command.fingerprint, count)
        self._place(command.run_id, partition, events)
        self.runs[command.run_id] = changes.runs[command.run_id] = state
        if state.status.is_final:
            changes.finished.append(command.run_id)
        return Applied(command.run_id, first, events[-1].seq, repeated=False, state=state)

    def _place(self, run_id: str, partition: int, events: Sequence[NewEvent]) -> None:
        """Give the events their positions."""
        before = self.heads[partition].position
        after = before + len(events)
        seqs, types, stored, chains = zip(*events, strict=True)
        positions = range(before + 1, after + 1)
        records = map(LogRecord, positions, repeat(run_id), seqs, types, stored, chains)
        self.changes.records.setdefault(partition, []).extend(records)
        self.heads[partition] = self.changes.heads[partition] = Head(after, chains[-1])


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch and the answers to its commands, in order."""

    batch: Batch
    answers: Sequence[Answer]

    @property
    def changes(self) -> Changes:
        """The changes to be stored."""
        return self.batch.changes

    @property
    def is_storable_unread(self) -> bool:
        """Whether the batch may be stored and answered if it was decided from the cache.

        Only commands that are new to the log allow this: a refusal may be due to something that others have changed
        since, or may be the answer to a command whose known key has to be recognized.
        """
        return all(isinstance(answer, Applied) and not answer.repeated for answer in self.answers)
