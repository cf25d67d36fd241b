"""One run as a store keeps it: its log, and the keys stored with it. Commands are decided on it, and all is checked."""

from __future__ import annotations

from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.commands import Append, Command, CreateRun, SendInput, SettleRequest, TellChild
from oa_runlog.authority.decide import Accepted, Decision, KnownKey, Unchanged, decide
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import EventBody, RunEvent
from oa_runlog.proof.chain import chain_over
from oa_runlog.state import RunState, RunStatus
from oa_runlog.state.reducer import replay
from oa_runlog.tests.run_model import claims
from oa_runlog.tests.values import ORG_ID, OTHER_WORKER_ID, RUN_ID, WORKER_ID

LIMITS = RunLimits(
    max_event_bytes=300,
    max_append_bytes=500,
    max_result_bytes=100,
    max_checkpoint_bytes=100,
    events_per_second=2,
    burst_events=8,
    max_requeues=2,
)
WORKERS = (WORKER_ID, OTHER_WORKER_ID)
B = TypeVar("B")
Keyed = CreateRun | Append | SendInput | SettleRequest | TellChild


def outcome(decision: Decision) -> str:
    """A decision in a word: `accepted`, `unchanged`, or the reason of its refusal."""
    return decision.reason if isinstance(decision, Refusal) else type(decision).__name__.lower()


class OneRun(RuleBasedStateMachine):
    """What a store keeps of one run, and nothing else; the rules of commands are in the classes below this one."""

    def __init__(self) -> None:
        super().__init__()
        self.state: RunState | None = None
        self.log: list[bytes] = []
        self.events: list[RunEvent] = []
        self.keys: dict[tuple[bool, str], KnownKey] = {}
        """Whether it is that of a creation, and the key: the keys of creations are their person's, not their run's."""
        self.now_ns = 10**18

    def do(self, command: Command) -> Decision:
        """Decide a command and store what it changes."""
        key = (isinstance(command, CreateRun), command.idempotency_key) if isinstance(command, Keyed) else None
        known = self.keys.get(key) if key else None
        decision = decide(self.state, command, LIMITS, self.now_ns, known)
        if isinstance(command, Keyed) and known is not None:
            _check_repetition(command, known, decision)
        if isinstance(decision, Accepted):
            self._store(decision)
            if key and isinstance(command, Keyed):
                first, count = decision.events[0].seq, len(decision.events)
                self.keys[key] = KnownKey(RUN_ID, command.fingerprint, first, count)
        self.note(command, decision)
        return decision

    def note(self, command: Command, decision: Decision) -> None:
        """For whoever wants to know what was decided."""

    def _store(self, decision: Accepted) -> None:
        assert self.state is None or not self.state.status.is_final, "a run that has ended grew"
        assert decision.events
        self.state = decision.state
        self.log += [event.data for event in decision.events]
        self.events += [wire.decode_event(event.data) for event in decision.events]

    @property
    def status(self) -> RunStatus | None:
        """Where the run stands; None before it exists."""
        return self.state.status if self.state else None

    def bodies_of(self, kind: type[B]) -> list[B]:
        """What the log has of a kind, in order."""
        return [event.body for event in self.events if isinstance(event.body, kind)]

    def held(self) -> RunState:
        """The run, which a worker holds: for rules with the precondition that it does."""
        assert self.state is not None
        assert self.state.is_leased
        return self.state

    def by_the_holder(self, key: str, *bodies: EventBody) -> Append:
        """An append by the worker that holds the run."""
        state = self.held()
        return Append.of(RUN_ID, ORG_ID, state.holder, state.lease_epoch, key, bodies)

    # --------------------------------------------------------------------------------------------- what always holds

    def check(self) -> None:
        """Hold the run against all that always holds."""
        self.the_log_leads_to_the_state()
        self.the_log_is_one_that_a_run_could_have()
        self.keys_point_to_what_was_stored_under_them()

    @invariant()
    def the_log_leads_to_the_state(self) -> None:
        assert replay(self.log) == self.state

    @invariant()
    def the_log_is_one_that_a_run_could_have(self) -> None:
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1))
        if self.state is not None:
            assert self.state.chain_head == chain_over(RUN_ID, self.log)
        for claim in claims.ALL:
            claim(self.events, LIMITS)

    @invariant()
    def keys_point_to_what_was_stored_under_them(self) -> None:
        for known in self.keys.values():
            assert known.first_seq >= 1
            assert known.first_seq + known.count - 1 <= len(self.log)


def _check_repetition(command: Keyed, known: KnownKey, decision: Decision) -> None:
    assert not isinstance(decision, Accepted), "a second thing was stored under a key"
    if command.fingerprint == known.fingerprint:
        last_seq = known.first_seq + known.count - 1
        assert decision == Unchanged(RUN_ID, known.first_seq, last_seq), "a repetition is answered like the first time"
