"""A run under command: what pure `decide` makes of commands at a clock of ours, kept as the bytes to store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority import decide as deciding
from oa_runlog.authority.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    Command,
    CreateRun,
    LoseLease,
    RequestCancel,
    SendInput,
    SettleRequest,
    TellChild,
    TimeLimit,
)
from oa_runlog.authority.decide import Accepted, Decision, KnownKey, Unchanged
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import (
    AttemptFailed,
    CheckpointSaved,
    ChildFinished,
    ChildStarted,
    CodexEvent,
    Custom,
    EventBody,
    ExecSpec,
    ExecutorLost,
    InputReceived,
    Message,
    MessageRole,
    Outcome,
    ProgressReported,
    RequestAnswered,
    RequestExpired,
    RequestKind,
    RequestOpened,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunSpec,
    RunStarted,
    StepCompleted,
    TextDelta,
    TextStream,
    ToolCall,
    ToolResult,
    TurnStatus,
    TurnStatusChanged,
    Usage,
    Verification,
)
from oa_runlog.state import RunState
from oa_runlog.state.transitions import TRIGGERS, next_status, trigger

ORG, USER = "org_01K0000000000000000000000D", "usr_01K0000000000000000000000C"
WORKERS = ("wrk_01K0000000000000000000000B", "wrk_01K0000000000000000000000E")
SPEC = RunSpec("exec", ExecSpec(("git", "log", "--stat")))
# Said here rather than left to the defaults: a setting of tomorrow must not change what is recorded.
LIMITS = RunLimits(max_requeues=3, cancel_deadline_ms=10_000)

_START_NS = 1_795_608_000_123_456_789
_MS_NS = 1_000_000
_STEP_NS = 250 * _MS_NS + 1
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Tried:
    """The bytes of an event that the run must not take where it stands."""

    data: bytes


def _one_of_each() -> dict[str, EventBody]:
    bodies: tuple[EventBody, ...] = (
        RunCreated(USER, ORG, SPEC),
        RunStarted(WORKERS[0], 1, 1),
        RunCancelRequested(USER, "enough"),
        ExecutorLost(WORKERS[0], 1, 1, requeued=True),
        AttemptFailed(WORKERS[0], 1, 1, RunFinished(Outcome.FAILED, "agent_error"), _START_NS),
        RequestAnswered("r1", "yes", "", USER),
        RequestExpired("r1", "no"),
        InputReceived(USER, '{"say":"Grüße"}'),
        ChildFinished("run_01K0000000000000000000000C", RunFinished(Outcome.FAILED, "agent_error")),
        TextDelta(TextStream.STDOUT, b"not utf-8: \xff\xfe\n"),
        ToolCall("c1", "add", {"a": 1.0, "b": [True, None, "two"]}),
        ToolResult("c1", result=4.0, has_result=True),
        Message(MessageRole.ASSISTANT, "Grüße, 世界 🌍"),
        Verification("tests", passed=True, detail="12 passed"),
        Usage("m-1", 1200, 34, 1000),
        CodexEvent(TurnStatusChanged("t1", TurnStatus.IN_PROGRESS), "th1"),
        Custom("acme.progress", {"percent": 12.5}),
        RequestOpened("r1", RequestKind.APPROVAL, "Order?", default_option="no"),
        StepCompleted(1, "quote", bytes(range(32)), '{"price":12.5}'),
        CheckpointSaved(1, '{"done":3}'),
        ChildStarted("c1", "run_01K0000000000000000000000C", "quote"),
        ProgressReported("3 of 10", 3, 10),
        *(RunFinished(outcome) for outcome in Outcome),
    )
    return {trigger(body): body for body in bodies}


ONE_OF_EACH: Mapping[str, EventBody] = MappingProxyType(_one_of_each())
"""A body for every trigger of the table."""
assert tuple(sorted(ONE_OF_EACH)) == tuple(sorted(TRIGGERS)), "each trigger of the table needs a body here"


class Teller:
    """One run. Every command is later than the one before, unless a story says how much."""

    def __init__(self, name: str) -> None:
        self.run_id = run_id_of(name)
        self.state: RunState | None = None
        self.told: list[bytes | Tried] = []
        self.now_ns = _START_NS

    # ------------------------------------------------------------------------------------------- what is commanded

    def create(self, spec: RunSpec = SPEC, parent: str = "") -> None:
        """A person wants the run, or another run does."""
        create = CreateRun.of(self.run_id, ORG, USER, spec, "create")
        self._do(create.child_of(parent, cancel_with_parent=True))

    def assign(self, worker: int = 0, after_ms: int = 0) -> None:
        """One of the workers gets it, once so many milliseconds have passed."""
        self.now_ns += after_ms * _MS_NS
        self._do(AssignRun(self.run_id, WORKERS[worker]))

    def append(self, *bodies: EventBody) -> None:
        """The worker that holds it appends, in one batch."""
        run = self._run
        self._do(Append.of(self.run_id, ORG, run.worker_id, run.lease_epoch, f"append-{run.latest_seq}", bodies))

    def cancel(self, reason: str = "") -> None:
        """The person wants it to end."""
        self._do(RequestCancel(self.run_id, ORG, USER, reason))

    def hear(self, text: str) -> None:
        """The person says something to it."""
        self._do(SendInput.of(self.run_id, ORG, USER, f"input-{self._run.latest_seq}", text))

    def settle(self, settled: RequestAnswered | RequestExpired | ChildStarted | ChildFinished) -> None:
        """A person answers a request, or its time is over; or a child was started or has ended."""
        if isinstance(settled, ChildStarted | ChildFinished):
            self._do(TellChild.of(self.run_id, ORG, settled))
        else:
            self._do(SettleRequest.of(self.run_id, ORG, settled))

    def lose(self) -> None:
        """Its worker goes silent."""
        self._do(LoseLease(self.run_id, self._run.worker_id, self._run.lease_epoch))

    def miss_deadline(self, policys_ms: int = 0) -> None:
        """Nobody ended it in time: after the cancel, or within so many milliseconds as its policy states."""
        self.now_ns += (policys_ms or LIMITS.cancel_deadline_ms) * _MS_NS
        self._do(TimeLimit(self.run_id) if policys_ms else CancelDeadline(self.run_id))

    # ------------------------------------------------------------------------------------------- what changes nothing

    def repeat_append(self, *bodies: EventBody) -> None:
        """The worker sends its newest append once more."""
        run = self._run
        first = run.latest_seq - len(bodies) + 1
        again = Append.of(self.run_id, ORG, run.worker_id, run.lease_epoch, f"append-{first - 1}", bodies)
        self._no_change(self._decide(again, KnownKey(self.run_id, again.fingerprint, first, len(bodies))))

    def finish_again(self, finish: RunFinished) -> None:
        """The worker says a second time, under another key, how it ended."""
        run = self._run
        self._no_change(self._decide(Append.of(self.run_id, ORG, run.worker_id, run.lease_epoch, "again", [finish])))

    def cancel_again(self) -> None:
        """The person is impatient."""
        self._no_change(self._decide(RequestCancel(self.run_id, ORG, USER, "now!")))

    def lose_long_ago(self) -> None:
        """It is noticed late that a lease ended that is not the newest."""
        self._no_change(self._decide(LoseLease(self.run_id, self._run.worker_id, self._run.lease_epoch - 1)))

    def look_at_deadline_early(self) -> None:
        """The deadline of the cancel is not over yet."""
        self._no_change(self._decide(CancelDeadline(self.run_id)))

    # ------------------------------------------------------------------------------------------- what is refused

    def try_everything_else(self) -> None:
        """Each event that the table does not have for the run's status, as it would stand in the log."""
        status = self.state.status if self.state else None
        for body in ONE_OF_EACH.values():
            if next_status(status, body) is None:
                self._try(body)

    def try_out_of_order(self, body: EventBody, *, seq: int) -> None:
        """An event that the table has, with a seq that is not the next."""
        self._try(body, seq)

    def _try(self, body: EventBody, seq: int | None = None) -> None:
        latest, epoch = (self.state.latest_seq, self.state.lease_epoch) if self.state else (0, 0)
        number = latest + 1 if seq is None else seq
        data = wire.encode_event(self.run_id, number, self.now_ns, epoch, wire.encode_body(body))
        self.told.append(Tried(data))

    # ------------------------------------------------------------------------------------------- the authority

    @property
    def _run(self) -> RunState:
        assert self.state is not None, "the story begins with create()"
        return self.state

    def _decide(self, command: Command, known: KnownKey | None = None) -> Decision:
        self.now_ns += _STEP_NS
        return deciding.decide(self.state, command, LIMITS, self.now_ns, known)

    def _do(self, command: Command) -> None:
        decision = self._decide(command)
        if isinstance(decision, Refusal):
            raise decision
        assert isinstance(decision, Accepted), f"{command} changed nothing"
        self.state = decision.state
        self.told += [event.data for event in decision.events]

    def _no_change(self, decision: Decision) -> None:
        if isinstance(decision, Refusal):
            raise decision
        assert isinstance(decision, Unchanged), "this was to change nothing"


def run_id_of(name: str) -> str:
    """The run id of a story: always the same, and of the form that all run ids have."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10])
    return "run_01K0000000" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(75, -1, -5))
