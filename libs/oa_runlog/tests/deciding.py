"""Deciding in tests: commands on one run, and what has to become of them."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, Command, CreateRun
from oa_runlog.authority.decide import Accepted, KnownKey, decide
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import EventBody, EventType, ExecSpec, Outcome, RunFinished, RunSpec, TextDelta, TextStream
from oa_runlog.state import RunState
from oa_runlog.tests.values import ORG_ID, RUN_ID, USER_ID, WORKER_ID

NOW = 1_795_366_653_000_000_000
SECOND = 1_000_000_000
LIMITS = RunLimits(max_event_bytes=1000, max_append_bytes=1500, events_per_second=10, burst_events=20)
SPEC = RunSpec("exec", ExecSpec(("git", "log")))
TEXT = TextDelta(TextStream.STDOUT, b"x")
SUCCEEDED, FAILED, CANCELED = (RunFinished(outcome) for outcome in Outcome)


def accepted(state: RunState | None, command: Command, now_ns: int = NOW, limits: RunLimits = LIMITS) -> RunState:
    """The state after a command that must be accepted."""
    decision = decide(state, command, limits, now_ns)
    assert isinstance(decision, Accepted), decision
    return decision.state


def types(state: RunState | None, command: Command, now_ns: int = NOW) -> list[EventType]:
    """What a command that must be accepted stores."""
    decision = decide(state, command, LIMITS, now_ns)
    assert isinstance(decision, Accepted), decision
    return [event.type for event in decision.events]


def refused(state: RunState | None, command: Command, now_ns: int = NOW, known: KnownKey | None = None) -> Refusal:
    """The refusal that a command must meet."""
    decision = decide(state, command, LIMITS, now_ns, known)
    assert isinstance(decision, Refusal), decision
    return decision


def create(spec: RunSpec = SPEC) -> CreateRun:
    """A person wants the run."""
    return CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "create")


def append(
    *bodies: EventBody,
    epoch: int = 1,
    key: str = "key",
    worker: str = WORKER_ID,
    org: str = ORG_ID,
    expected_seq: int | None = None,
) -> Append:
    """The worker says something."""
    return Append.of(RUN_ID, org, worker, epoch, key, bodies or (TEXT,), expected_seq)
