"""Histories of runs for the tests: what the authority could have written, made by hand or by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog import events as e
from oa_runlog.state import RunState
from oa_runlog.state.reducer import advance
from oa_runlog.wire import StoredEvent, encode_body, encode_event
from services.projector.projection.domain import LogBatch

START_NS = 1_700_000_000_000_000_000


def ulid(prefix: str, number: int) -> str:
    """An id with a readable number."""
    return f"{prefix}_{number:026d}"


USER, OTHER_USER = ulid("usr", 1), ulid("usr", 2)
ORG, OTHER_ORG = ulid("org", 1), ulid("org", 2)
SPEC = e.RunSpec("exec", e.ExecSpec(("git", "log", "--stat")))


def history(number: int, bodies: Sequence[e.EventBody]) -> list[e.RunEvent]:
    """The events of run `number` with these bodies."""
    return [
        e.RunEvent(ulid("run", number), seq, START_NS + number * 1_000 + seq, 0, body)
        for seq, body in enumerate(bodies, start=1)
    ]


def created(user_id: str = USER, org_id: str = ORG, spec: e.RunSpec = SPEC) -> e.RunCreated:
    """The first event of a run."""
    return e.RunCreated(user_id, org_id, spec)


def started(attempt: int = 1) -> e.RunStarted:
    """A worker takes the run."""
    return e.RunStarted(ulid("wrk", attempt), attempt, attempt)


def text(data: bytes) -> e.TextDelta:
    """A piece of output."""
    return e.TextDelta(e.TextStream.STDOUT, data)


SUCCEEDED = e.RunFinished(e.Outcome.SUCCEEDED, exec=e.ExecResult(exit_code=0, duration_ms=12, stdout_bytes=5))


def whole_run(number: int, user_id: str = USER, org_id: str = ORG, deltas: int = 3) -> list[e.RunEvent]:
    """A run from its creation to its success."""
    return history(number, [created(user_id, org_id), started(), *(text(b"x" * n) for n in range(deltas)), SUCCEEDED])


def batch(partition: int, first_position: int, events: Sequence[e.RunEvent]) -> LogBatch:
    """Entries of a partition."""
    entries = tuple(StoredEvent(event.run_id, event.seq, event_bytes(event)) for event in events)
    return LogBatch(partition, first_position, entries)


def event_bytes(event: e.RunEvent) -> bytes:
    """As runtime stores it."""
    body = encode_body(event.body)
    return encode_event(event.run_id, event.seq, event.recorded_ns, event.lease_epoch, body)


# ------------------------------------------------------------------------------------------------- by chance

_WORDS = st.text("abc xyzäß", max_size=12)
_COUNTS = st.integers(0, 2**40)
_MOVES: st.SearchStrategy[e.EventBody] = st.one_of(
    st.builds(started),
    st.builds(e.RunCancelRequested, st.just(USER), _WORDS),
    st.builds(
        e.RunFinished,
        st.sampled_from(e.Outcome),
        _WORDS,
        _WORDS,
        st.none() | st.builds(e.ExecResult, st.none() | st.integers(-128, 255), st.integers(0, 31), _COUNTS, _COUNTS),
    ),
    st.builds(e.ExecutorLost, st.just(ulid("wrk", 1)), st.integers(1, 5), st.integers(1, 5), st.booleans()),
    st.just(e.ChildStarted("c1", ulid("run", 9), "quote")),
    st.just(e.AttemptFailed(ulid("wrk", 1), 1, 1, e.RunFinished(e.Outcome.FAILED, "agent_error"), 0)),
)
_WORK: st.SearchStrategy[e.EventBody] = st.one_of(
    st.builds(e.TextDelta, st.sampled_from(e.TextStream), st.binary(max_size=20)),
    st.builds(e.ToolCall, st.just("c1"), st.just("tool")),
    st.builds(e.ToolResult, st.just("c1"), st.booleans()),
    st.builds(e.Message, st.sampled_from(e.MessageRole), _WORDS),
    st.builds(e.Verification, st.just("tests"), st.booleans()),
    st.builds(e.Usage, st.just("m"), _COUNTS, _COUNTS, _COUNTS),
    st.builds(e.Custom, st.just("acme.progress")),
    st.just(e.RequestOpened("r1", e.RequestKind.APPROVAL, "Order?")),
    st.builds(e.StepCompleted, st.integers(1, 9), st.just("quote"), st.just(bytes(32)), st.just("{}")),
    st.builds(e.CheckpointSaved, st.integers(1, 9), st.just("{}")),
    st.builds(e.ProgressReported, st.just("on"), st.none() | _COUNTS, st.none() | _COUNTS),
)
_SPECS = st.builds(
    e.RunSpec,
    st.sampled_from(["exec", "codex"]),
    st.builds(e.ExecSpec, st.lists(_WORDS, min_size=1, max_size=4).map(tuple)) | st.builds(e.PromptSpec, _WORDS),
    _WORDS,
    st.sampled_from(["", "thread"]),
    queue=st.sampled_from([e.AT_ONCE, e.QueuePolicy(start_timeout_ms=9, retry=e.RetryPolicy(3))]),
)
_CREATED = st.builds(created, st.sampled_from([USER, OTHER_USER]), st.sampled_from([ORG, OTHER_ORG]), _SPECS)


@st.composite
def histories(draw: st.DrawFn, number: int, max_events: int = 14) -> list[e.RunEvent]:
    """A run's events, each allowed after the one before; it need not have ended."""
    events = history(number, [draw(_CREATED)])
    state = advance(None, events[0], b"")
    for body in draw(st.lists(_MOVES | _WORK, max_size=max_events)):
        event = _next(state, body)
        try:
            state = advance(state, event, b"")
        except Refusal:
            continue
        events.append(event)
    return events


def _next(state: RunState, body: e.EventBody) -> e.RunEvent:
    """`body` as the next event, under the lease that it needs."""
    lease = state.lease_epoch if state.is_leased else 0
    match body:
        case e.RunStarted():
            body, lease = started(state.attempt + 1), 0
        case e.ExecutorLost(requeued=requeued):
            body, lease = e.ExecutorLost(state.worker_id, state.lease_epoch, state.attempt, requeued), 0
        case e.AttemptFailed():
            body, lease = replace(body, lease_epoch=state.lease_epoch, attempt=state.attempt), 0
        case e.RunCancelRequested() | e.ChildStarted():
            lease = 0
    return e.RunEvent(state.run_id, state.latest_seq + 1, state.create_ns + state.latest_seq, lease, body)


@st.composite
def interleavings(draw: st.DrawFn, max_runs: int = 4) -> list[e.RunEvent]:
    """One partition's entries: several runs, each in order, mixed by chance."""
    runs = [draw(histories(number)) for number in range(draw(st.integers(1, max_runs)))]
    mixed: list[e.RunEvent] = []
    while any(runs):
        run = draw(st.sampled_from([run for run in runs if run]))
        mixed.append(run.pop(0))
    return mixed
